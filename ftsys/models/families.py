"""Lists the model families that support packed batches, and explains why another model does not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from torch import nn
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from ftsys.errors import ConfigError
from ftsys.model_files.config import model_config
from ftsys.model_files.remote_code import CLASSIFIER, has_own, refusal
from ftsys.models.layout_slot import LayoutSlot, Pooling, first_tokens, last_tokens, mean_of_tokens

Installer = Callable[[PreTrainedModel, LayoutSlot], None]


def _install_mpnet(model: PreTrainedModel, layout_slot: LayoutSlot) -> None:
    from ftsys.models.mpnet import install_packed_mpnet  # imports transformers' module of this model only if it is used

    install_packed_mpnet(model, layout_slot)


def _install_deberta(model: PreTrainedModel, layout_slot: LayoutSlot) -> None:
    from ftsys.models.deberta import install_packed_deberta

    install_packed_deberta(model, layout_slot)


@dataclass(frozen=True)
class Family:
    """Describes how the models of one family run on packed batches.

    `encoder` is the name of the base model's submodule whose output is pooled, "" for the base model itself. `pooling`
    gives the row of each sequence that the head reads; for a family with several, it is a table by
    `config.classifier_pooling`.
    """

    encoder: str = ""
    has_token_types: bool = False
    pooling: Pooling | Mapping[str, Pooling] = first_tokens
    head_sees_sequences: bool = False
    """True if the head pools by `input_ids` or the mask; then it gets one token per sequence and no mask."""
    inputs: Mapping[str, Any] | None = None
    """Additional keyword arguments of the base model."""
    install: Installer | None = None
    """Function that replaces module classes, for families that do not use transformers' AttentionInterface."""

    def pooling_of(self, config: Any) -> Pooling | None:
        """Return the pooling that `config` asks for; None if the family does not have it."""
        return self.pooling if callable(self.pooling) else self.pooling.get(config.classifier_pooling)


_BERT = Family("encoder", has_token_types=True)
_DECODER = Family(pooling=last_tokens, head_sees_sequences=True, inputs={"use_cache": False})
FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "electra": _BERT,
    "albert": _BERT,
    "distilbert": Family("transformer"),
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "ernie": _BERT,
    "roberta-prelayernorm": _BERT,
    "xlm-roberta-xl": _BERT,
    "data2vec-text": _BERT,
    "mpnet": Family("encoder", install=_install_mpnet),
    # Pools the base model's output: it is the last entry of all hidden states, not the encoder's own result.
    "deberta-v2": Family(has_token_types=True, install=_install_deberta),
    "modernbert": Family(pooling={"cls": first_tokens, "mean": mean_of_tokens}, head_sees_sequences=True),
    # The third pooling, "late", is a mean of logits, for which the head needs all tokens.
    "eurobert": Family(pooling={"bos": first_tokens, "mean": mean_of_tokens}, head_sees_sequences=True),
    "llama": _DECODER,
    "qwen2": _DECODER,
    "qwen3": _DECODER,
    "mistral": _DECODER,
    "gemma": _DECODER,
    "olmo2": _DECODER,
    "phi3": _DECODER,
    "smollm3": _DECODER,
}


def why_not_packable(model: nn.Module) -> str | None:
    """Return the reason why `model` needs padded batches, or None if it supports packed ones."""
    if not isinstance(model, PreTrainedModel):
        return f"{type(model).__name__} is not a transformers model"
    config = model.config
    family = FAMILIES.get(config.model_type)
    if family is None:
        return f"model type {config.model_type!r} is not among the packed ones ({', '.join(sorted(FAMILIES))})"
    if not type(model).__name__.endswith("ForSequenceClassification"):
        return f"{type(model).__name__} is not a sequence classifier"
    if getattr(config, "is_decoder", False):
        return "config.is_decoder=True asks for causal attention"
    if getattr(config, "position_embedding_type", "absolute") not in (None, "absolute"):
        return f"position_embedding_type={config.position_embedding_type!r} needs padded attention"
    if family.pooling_of(config) is None:
        return f"config.classifier_pooling={config.classifier_pooling!r} is not a pooling that packed batches know"
    if family is _DECODER and config.pad_token_id is None:
        return "config.pad_token_id is None, without which transformers' head takes one sequence at a time"
    return None


def check_has_classifier(folder: Path, trust_remote_code: bool = False) -> None:
    """Check that transformers, or trusted code of the model's own, has a sequence classifier for a model's config.json.

    Raises:
        ConfigError: there is none, or only one in code that is not trusted.
    """
    config = model_config(folder)
    model_type = config.get("model_type")
    if model_type in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        return
    if not has_own(CLASSIFIER, config):
        raise ConfigError(
            f"model type {model_type!r} has no sequence classifier in transformers {transformers.__version__}. "
            "Choose a model of another type for model.name."
        )
    if not trust_remote_code:
        raise refusal(f"the model in {str(folder)!r}, of type {model_type!r},")
