"""A model's config.json -> its parameters and the sizes of its activations, without torch and without weights.

Names, shapes and order are those of transformers' sequence classifiers, held to them by a test on the meta device.
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
"""transformers' model type -> what makes a shape of its config.json."""


def model_shape(config: Config, outputs: int) -> ModelShape:
    """The shape of the sequence classifier that transformers makes of a config.json, with `outputs` logits.

    Raises ConfigError for a model type that is not known here, or a value that is no size.
    """
    family = config.get("model_type")
    if family not in FAMILIES:
        raise ConfigError(f"model type {family!r} is not among those whose sizes are known ({', '.join(FAMILIES)})")
    return FAMILIES[family](config, outputs)


def known_shape(config: Config, outputs: int) -> ModelShape | None:
    """As `model_shape`, but None where that raises: a model may be trained whose memory nobody can tell."""
    try:
        return model_shape(config, outputs)
    except ConfigError:
        return None


def not_recomputable(family: str) -> str:
    """What to say of a model whose activations transformers cannot compute again."""
    return (
        f"engine.activation_checkpointing=True, but transformers cannot compute activations of {family!r} models "
        'again: write "auto" or false.'
    )
