"""Marks the weights of a model's shape that a run does not train, adds its adapters and its dropout. Pure."""

from collections.abc import Iterator
from dataclasses import replace

from ftsys.config import RunConfig
from ftsys.model_files.parts import part_of
from ftsys.model_files.trained_weights import adapter_targets, frozen_names
from launcher.planner.model_shape.shape import ModelShape, Tensor


def trained_shape(shape: ModelShape | None, run: RunConfig) -> ModelShape | None:
    """Return the shape with `train.dropout`, and `frozen` set as `train.freeze` and `[lora]` ask for; None stays None.

    Raises ConfigError for parts and layers that the model does not have.
    """
    if shape is None:
        return None
    if (dropout := run.train.dropout) is not None:
        shape = replace(shape, layer=replace(shape.layer, attention_dropout=dropout, hidden_dropout=dropout))
    if not run.train.freeze and run.lora.r is None:
        return shape
    # Not the first tensor: in some families that is the head's.
    base = next(tensor.name for tensor in shape.tensors if tensor.embedding).partition(".")[0]
    if run.lora.r is not None:
        return replace(shape, tensors=tuple(_with_adapters(shape, base, run)))
    frozen = frozen_names([tensor.name for tensor in shape.tensors], base, run.train.freeze)
    return replace(shape, tensors=tuple(replace(each, frozen=each.name in frozen) for each in shape.tensors))


def _with_adapters(shape: ModelShape, base: str, run: RunConfig) -> Iterator[Tensor]:
    """Yield the tensors with an adapter's two behind each weight that it adapts; all but these and the head frozen."""
    rank = int(run.lora.r or 0)
    matrices = [tensor.name.removesuffix(".weight") for tensor in shape.tensors if _is_linear(tensor)]
    targets = set(adapter_targets(matrices, base, run.lora.target_modules))
    for tensor in shape.tensors:
        yield replace(tensor, frozen=part_of(tensor.name, base) != "head")
        layer = tensor.name.removesuffix(".weight")
        if layer in targets and _is_linear(tensor):
            outputs, inputs = tensor.shape
            yield Tensor(f"{layer}.lora_A.weight", (rank, inputs), uses=tensor.uses)
            yield Tensor(f"{layer}.lora_B.weight", (outputs, rank), uses=tensor.uses)


def _is_linear(tensor: Tensor) -> bool:
    return len(tensor.shape) == 2 and not tensor.embedding and tensor.name.endswith(".weight")
