"""Finds the order in which a trained classification head has the classes of a task, from the model's config.json."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftsys.errors import ConfigError
from ftsys.labels import ClassNames
from ftsys.tasks import Task

_OTHER_PROBLEMS = {
    ("multi_label_classification", "class"): "several labels at once (multi_label_classification)",
    ("single_label_classification", "labels"): "one label at a time (single_label_classification)",
}
"""Why a head of this `problem_type` is not one for this kind of task; other combinations are decided by names."""

_GENERIC = re.compile(r"LABEL_\d+")
"""The names that transformers writes for outputs that nobody named."""


@dataclass(frozen=True)
class HeadOrder:
    """`outputs[i]` is the head's output for the task's class i. `note` says how it was found, if that is worth it."""

    outputs: tuple[int, ...]
    note: str = ""

    @property
    def is_the_tasks(self) -> bool:
        """True if the head has the classes in the task's order."""
        return self.outputs == tuple(range(len(self.outputs)))


def head_names(place: str, config: Mapping[str, Any]) -> list[str]:
    """Return the names of a head's outputs in their order, from `id2label`, or from `label2id` if only that has names.

    `place` names the model. Raises ConfigError if both have names and contradict each other, and for ids
    that are no numbers.
    """
    try:
        by_id = {int(index): str(name) for index, name in (config.get("id2label") or {}).items()}
        by_name = {int(index): str(name) for name, index in (config.get("label2id") or {}).items()}
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{place}: id2label or label2id in its config.json has a wrong id ({error}).") from error
    named = [each for each in (by_id, by_name) if not is_generic(each.values())]
    if len(named) == 2 and by_id != by_name:
        raise ConfigError(
            f"{place}: its config.json contradicts itself: id2label is {by_id}, and by label2id it would be "
            f"{dict(sorted(by_name.items()))}. Correct one of them."
        )
    names = named[0] if named else by_id or by_name
    return [names[index] for index in sorted(names)]


def is_generic(names: Any) -> bool:
    """Return True if no name says anything about a class."""
    return all(_GENERIC.fullmatch(name) for name in names)


def head_order(place: str, config: Mapping[str, Any], task: Task) -> HeadOrder:
    """Map a head's outputs to the task's classes by name, upper and lower case aside; `place` names the model.

    Outputs without names (LABEL_0, ...) are taken in the task's order. Raises ConfigError if the names are not the
    task's, and for a head that was trained for several labels at once where the task has one, or the other way round.
    """
    names, own_order = head_names(place, config), HeadOrder(tuple(range(task.num_outputs)))
    trained_for = _OTHER_PROBLEMS.get((str(config.get("problem_type")), task.kind))
    if trained_for is not None:
        raise _other_head(place, trained_for, task)
    if task.regression:
        return own_order
    if is_generic(names):
        note = f"{place}: its outputs have no names (LABEL_0, ...): they are taken in the order of task.labels"
        return HeadOrder(own_order.outputs, note)
    classes = ClassNames(task.labels)
    found = [classes.find_without_case(name) for name in names]
    if sorted(found) != list(own_order.outputs):
        raise _other_head(place, f"the classes {names}", task)
    order = HeadOrder(tuple(found.index(index) for index in own_order.outputs))
    if order.is_the_tasks:
        return order
    return HeadOrder(order.outputs, f"{place}: its classes are in the order {names}; they are mapped by name")


def _other_head(place: str, trained_for: str, task: Task) -> ConfigError:
    return ConfigError(
        f"{place}: its head was trained for {trained_for}, and task {task.name!r} has {_listed(task.labels)}. "
        'Correct id2label and label2id in its config.json, or write model.head (run-glue: --head): "new" for a new '
        'head, "keep" if its outputs are the classes of task.labels in their order.'
    )


def _listed(labels: Sequence[str]) -> str:
    return f"the classes {list(labels)}" if labels else "a number"
