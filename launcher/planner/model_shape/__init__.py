"""Derives a model's parameters and activation sizes from its config.json, without torch and without weights.

Names, shapes and order are those of transformers' sequence classifiers; a test compares them on the meta device.
"""

from ftsys.errors import ConfigError
from launcher.planner.model_shape import bert_family, decoders, encoders
from launcher.planner.model_shape.parts import Config
from launcher.planner.model_shape.shape import Layer, ModelShape, Tensor

__all__ = ["FAMILIES", "Layer", "ModelShape", "Tensor", "known_shape", "model_shape", "not_recomputable"]

FAMILIES = {
    "bert": bert_family.bert,
    "roberta": bert_family.roberta,
    "xlm-roberta": bert_family.xlm_roberta,
    "camembert": bert_family.camembert,
    "distilbert": bert_family.distilbert,
    "electra": bert_family.electra,
    "albert": bert_family.albert,
    "mpnet": encoders.mpnet,
    "deberta-v2": encoders.deberta_v2,
    "modernbert": encoders.modernbert,
    "llama": decoders.llama,
    "mistral": decoders.mistral,
    "qwen2": decoders.qwen2,
    "qwen3": decoders.qwen3,
}
"""transformers' model type -> function from a config.json and a number of outputs to a shape."""


def model_shape(config: Config, outputs: int) -> ModelShape:
    """Return the shape of transformers' sequence classifier for a config.json, with `outputs` logits.

    Raises ConfigError for an unknown model type or an invalid size.
    """
    family = config.get("model_type")
    if family not in FAMILIES:
        raise ConfigError(f"model type {family!r} is not among those whose sizes are known ({', '.join(FAMILIES)})")
    return FAMILIES[family](config, outputs)


def known_shape(config: Config, outputs: int) -> ModelShape | None:
    """Return `model_shape`, or None where it raises: a model can be trained without a memory prediction."""
    try:
        return model_shape(config, outputs)
    except ConfigError:
        return None


def not_recomputable(family: str) -> str:
    """Return the error message for a model family whose activations transformers cannot recompute."""
    return (
        f"engine.activation_checkpointing=True, but transformers cannot compute activations of {family!r} models "
        'again: write "auto" or false.'
    )
