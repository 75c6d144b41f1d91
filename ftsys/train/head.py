"""Fits the head of a loaded model to a task: puts its outputs into the order of the classes, or makes it anew."""

from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from ftsys.errors import ConfigError
from ftsys.model_files.config import model_config
from ftsys.model_files.head_order import head_names, head_order, is_generic
from ftsys.report.notes import show_notes
from ftsys.tasks import Task


def fit_head(model: PreTrainedModel, folder: Path, task: Task, choice: str, fresh: list[str]) -> list[str]:
    """Fit the head by `choice` ("auto", "keep" or "new"); returns the names of all freshly initialized weights.

    `fresh` has the names that loading initialized. A head that is fresh already stays as it is. Raises ConfigError if
    the head's classes are not the task's.
    """
    if choice == "new":
        return sorted({*fresh, *_make_anew(model)})
    place = f"model {str(folder)!r}"
    name, layer = _output_layer(model, task.num_outputs)
    of_head = _head_weights(model) if layer is None else [f"{name}.weight"]
    is_new = not set(fresh).isdisjoint(of_head)
    if choice == "keep" and is_new:
        raise ConfigError(
            f'model.head = "keep", but {place} has no trained head with {task.num_outputs} output(s). '
            'Write model.head = "auto", which makes a new one.'
        )
    if choice == "keep" or is_new:
        show_notes(*_other_size(place, folder, task) if is_new else ())
        return fresh
    order = head_order(place, model_config(folder), task)
    if layer is not None and not order.is_the_tasks:
        _reorder(layer, order.outputs)
    elif not order.is_the_tasks:
        raise ConfigError(f"{order.note}, which is impossible: a {type(model).__name__} ends in no linear layer.")
    show_notes(*filter(None, [order.note]))
    return fresh


def _other_size(place: str, folder: Path, task: Task) -> list[str]:
    """Return a note if the model's configuration names another number of outputs than the task has."""
    names = head_names(place, model_config(folder))
    if is_generic(names) or len(names) == task.num_outputs:
        return []
    return [f"{place}: its configuration names {names}, the task has {task.num_outputs} output(s): the head is new"]


def _reorder(layer: nn.Linear, outputs: tuple[int, ...]) -> None:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(parameter[list(outputs)])


def _output_layer(model: PreTrainedModel, outputs: int) -> tuple[str, nn.Linear | None]:
    """Return the last linear layer of the head with that number of outputs, and its name; ("", None) if none has it."""
    inside = f"{model.base_model_prefix}."
    found: list[tuple[str, nn.Linear | None]] = [("", None)]
    found += [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == outputs and not name.startswith(inside)
    ]
    return found[-1]


def _make_anew(model: PreTrainedModel) -> list[str]:
    """Initialize all weights of the head, by torch's current seed, as for a model without one; returns their names."""
    new = type(model)(model.config).state_dict()
    with torch.no_grad():
        for name in _head_weights(model):
            model.state_dict()[name].copy_(new[name])
    return _head_weights(model)


def _head_weights(model: PreTrainedModel) -> list[str]:
    return [name for name in model.state_dict() if not name.startswith(f"{model.base_model_prefix}.")]
