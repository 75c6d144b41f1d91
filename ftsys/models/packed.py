"""The packed view of an unmodified Hugging Face encoder: batches without a single padding token.

A view is two things put on the instance, nothing in its weights or class: an attention function registered with
transformers, which sees where each sequence lies, and a hook behind the last encoder layer, which hands the head the
first token of each sequence as (S, 1, D). Ordinary padded batches go through the same model as before.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from ftsys.kernels.attention import KERNELS
from ftsys.kernels.layout import PackedLayout

ATTENTION_NAME = "ftsys_packed"


@dataclass(frozen=True)
class Family:
    """How a family of encoders is opened up: where its layers end, and how it counts positions."""

    encoder: str
    positions_start_behind_padding: bool = False
    has_token_types: bool = True


_ROBERTA = Family("encoder", positions_start_behind_padding=True)
FAMILIES: dict[str, Family] = {
    "bert": Family("encoder"),
    "electra": Family("encoder"),
    "albert": Family("encoder"),
    "distilbert": Family("transformer", has_token_types=False),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
}


def packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    packed: PackedLayout | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in each layer: (1, H, T, K) in, (1, T, H, K) out; without `packed`, torch's own."""
    if packed is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    query_THK, key_THK, value_THK = (states[0].transpose(0, 1) for states in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    output_THK = KERNELS[packed.kernel](query_THK, key_THK, value_THK, packed, scale, dropout)
    return output_THK[None], None


AttentionInterface.register(ATTENTION_NAME, packed_attention)
AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)


def why_not_packable(model: nn.Module) -> str | None:
    """The reason why `model` is fed padded batches, or None when it can be packed."""
    if not isinstance(model, PreTrainedModel):
        return f"{type(model).__name__} is not a transformers model"
    family = FAMILIES.get(model.config.model_type)
    if family is None:
        return f"model type {model.config.model_type!r} is not among the packed ones ({', '.join(sorted(FAMILIES))})"
    if not type(model).__name__.endswith("ForSequenceClassification"):
        return f"{type(model).__name__} is not a sequence classifier"
    if getattr(model.config, "is_decoder", False):
        return "config.is_decoder=True asks for causal attention"
    if getattr(model.config, "position_embedding_type", "absolute") not in (None, "absolute"):
        return f"position_embedding_type={model.config.position_embedding_type!r} needs padded attention"
    return None


class PackedView:
    """Feeds packed batches to `model`, which stays the plain Hugging Face model in every other respect."""

    def __init__(self, model: PreTrainedModel, kernel: str = "padded") -> None:
        """Attach to `model`, which must be packable (see `why_not_packable`)."""
        self.kernel = kernel
        self.family = FAMILIES[model.config.model_type]
        self.first_position = model.config.pad_token_id + 1 if self.family.positions_start_behind_padding else 0
        self.has_token_types = self.family.has_token_types and getattr(model.config, "type_vocab_size", 0) > 0
        # One token type means that the model has no use for a second one: its embedding has a single row.
        self.token_types = getattr(model.config, "type_vocab_size", 0)
        model.set_attn_implementation(ATTENTION_NAME)
        encoder = getattr(model.base_model, self.family.encoder)
        encoder.register_forward_hook(_keep_first_tokens, with_kwargs=True)

    def inputs(
        self,
        input_ids_T: torch.Tensor,
        position_ids_T: torch.Tensor,
        token_type_ids_T: torch.Tensor | None,
        cu_seqlens: torch.Tensor,
        max_seqlen: int,
    ) -> dict[str, Any]:
        """The keyword arguments of the model's own `forward` for one packed batch.

        `input_ids_T`, `position_ids_T` (from 0 in each sequence) and `token_type_ids_T` are int64 (T,).
        """
        inputs: dict[str, Any] = {
            "input_ids": input_ids_T[None],
            "position_ids": (position_ids_T + self.first_position if self.first_position else position_ids_T)[None],
            # Four dimensions: transformers takes it as a finished mask and builds none of its own.
            "attention_mask": torch.zeros(1, 1, 1, 1, device=input_ids_T.device),
            "packed": PackedLayout(cu_seqlens, max_seqlen, self.kernel),
        }
        if self.has_token_types:
            known = token_type_ids_T is not None and self.token_types > 1
            types_T = token_type_ids_T if known else torch.zeros_like(input_ids_T)
            inputs["token_type_ids"] = types_T[None]  # type: ignore[index]  # known implies a tensor
        return inputs


def _keep_first_tokens(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """Replace the last hidden state (1, T, D) by the sequences' first tokens (S, 1, D); padded batches pass."""
    layout: PackedLayout | None = kwargs.get("packed")
    if layout is not None:
        first_SD = output.last_hidden_state[0].index_select(0, layout.first_tokens_S)
        output.last_hidden_state = first_SD[:, None]
    return output
