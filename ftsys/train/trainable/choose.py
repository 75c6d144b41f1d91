"""Chooses the weights of a run's model that are trained: all, all but `train.freeze`, or adapters and head."""

from torch import nn
from transformers import PreTrainedModel

from ftsys.config import RunConfig
from ftsys.model_files.trained_weights import frozen_names
from ftsys.train.trainable.lora import add_adapters


def choose_trained(model: PreTrainedModel, run: RunConfig, fresh: list[str]) -> None:
    """Freeze what `train.freeze` names; with `lora.r` add adapters, and freeze all but them, the head and `fresh`.

    Raises ConfigError for names that the model does not have.
    """
    if run.train.freeze:
        parameters = dict(model.named_parameters())
        for name in frozen_names(parameters, model.base_model_prefix, run.train.freeze):
            parameters[name].requires_grad_(False)
    if run.lora.r is not None:
        add_adapters(model, run.lora, fresh, run.train.seed)


def trained_share(model: nn.Module) -> str:
    """Return a line about the number of weights that are trained."""
    sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    held, trained = sum(size for size, _ in sizes), sum(size for size, is_trained in sizes if is_trained)
    return f"{trained:,} of {held:,} weights are trained, {trained / held:.2%}"
