"""Makes an unmodified Hugging Face encoder run on packed batches, which have no padding tokens.

The changes are made to the instance, not to its weights or its class: an attention function that knows each sequence's
bounds, and hooks that give the head one row per sequence as (S, 1, D). Padded batches work as before, with the model's
own attention. A view can be taken off again: then the model is as it was.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from ftsys.errors import ConfigError
from ftsys.kernels.batch_windows import KnownSites
from ftsys.kernels.layout import PackedLayout
from ftsys.models.attention_interface import ATTENTION_NAME, register_attention
from ftsys.models.dropout import install_keyed_dropout
from ftsys.models.families import FAMILIES, Family, why_not_packable
from ftsys.models.fused import install_fused_layers, install_rms_norms
from ftsys.models.instances.changes import Changes, recorded
from ftsys.models.joint_linear import join_linear_layers, linear_groups
from ftsys.models.last_layer import skip_unused_rows
from ftsys.models.layout_slot import LayoutSlot, first_tokens
from ftsys.models.onednn.training import train_by_onednn

__all__ = ["FAMILIES", "PackedView", "why_not_packable"]

_INSTALLATION = "_ftsys_installation"


@dataclass
class _Installation:
    """Holds what is on a model while it has views. An attribute of the model: a copy of the model has its own."""

    slot: LayoutSlot
    changes: Changes


class PackedView:
    """Builds the inputs of `model` for packed batches; in all other respects the model stays unmodified."""

    def __init__(self, model: PreTrainedModel, kernel: str = "padded", compiled: bool = False) -> None:
        """Install the view on `model`, only once if it has several views; `compiled` is that of `PackedLayout`.

        Raises:
            ConfigError: the model does not support packed batches; the message has `why_not_packable`'s reason.
        """
        reason = why_not_packable(model)
        if reason is not None:
            raise ConfigError(f"the model cannot be packed: {reason}. Feed it padded batches.")
        self.kernel, self.compiled = kernel, compiled
        self._known_sites = KnownSites()
        self._masks: dict[torch.device, torch.Tensor] = {}
        self.family = FAMILIES[model.config.model_type]
        self.token_types = getattr(model.config, "type_vocab_size", 0) if self.family.has_token_types else 0
        self.first_position, self.longest = _position_table(model)
        self._model, self._installed = model, False
        self.install()

    @property
    def slot(self) -> LayoutSlot:
        """Return the slot that holds the layout of the model's current batch, while the view is installed."""
        slot: LayoutSlot = getattr(self._model, _INSTALLATION).slot
        return slot

    def install(self) -> None:
        """Put hooks, attention and module classes on the model, where this view has not done so yet."""
        if self._installed:
            return
        if not hasattr(self._model, _INSTALLATION):
            with recorded(self._model) as changes:
                slot = _install(self._model, self.family)
            setattr(self._model, _INSTALLATION, _Installation(slot, changes))
        getattr(self._model, _INSTALLATION).changes.users += 1
        self._installed = True

    def remove(self) -> None:
        """Take off what `install` put on the model, where no other view needs it: it is then as it was before."""
        if not self._installed:
            return
        self._installed = False
        installation, groups = getattr(self._model, _INSTALLATION), linear_groups(self._model)
        if installation.changes.leave():
            for group in groups:
                group.separate()
            installation.slot.use_own_attention()
            delattr(self._model, _INSTALLATION)

    def inputs(
        self,
        input_ids_T: torch.Tensor,
        position_ids_T: torch.Tensor,
        token_type_ids_T: torch.Tensor | None,
        cu_seqlens: torch.Tensor,
        max_seqlen: int,
        dropout_keys_T: torch.Tensor | None = None,
    ) -> dict[str, Any]:
        """Return the keyword arguments of the model's own `forward` for one packed batch.

        `input_ids_T`, `position_ids_T` (from 0 in each sequence), `token_type_ids_T` and `dropout_keys_T` are int64
        (T,); `cu_seqlens` is int32 (S + 1,). See `ftsys.kernels.dropout.token_keys` for the dropout keys; without them,
        a model in training uses torch's dropout.

        Raises:
            ConfigError: a sequence is longer than the model's table of positions.
        """
        if self.longest is not None and max_seqlen > self.longest:
            raise ConfigError(
                f"a sequence of {max_seqlen} tokens is longer than the model's {self.longest} positions. "
                f"Set data.max_length to {self.longest} or less."
            )
        layout = PackedLayout(
            cu_seqlens, max_seqlen, self.kernel, dropout_keys_T, self.compiled, self._known_sites, len(input_ids_T)
        )
        inputs: dict[str, Any] = {
            "input_ids": input_ids_T[None],
            "position_ids": (position_ids_T + self.first_position if self.first_position else position_ids_T)[None],
            # transformers uses a mask of four dimensions as it is, and builds none. The value is 1 because DeBERTa
            # multiplies its embeddings by it.
            "attention_mask": self._visible(input_ids_T.device),
        }
        if self.token_types > 0:
            # A model with one token type has an embedding of a single row, so all types are 0.
            known = token_type_ids_T is not None and self.token_types > 1
            types_T = token_type_ids_T if known else torch.zeros_like(input_ids_T)
            inputs["token_type_ids"] = types_T[None]  # type: ignore[index]  # `known` implies a tensor
        if not self.family.head_sees_sequences:
            return inputs | {"packed": layout}
        ends_S1 = input_ids_T[layout.last_tokens_S][:, None]
        return {"input_ids": ends_S1, "packed": layout, "base_inputs": inputs | dict(self.family.inputs or {})}

    def _visible(self, device: torch.device) -> torch.Tensor:
        """Return the mask (1, 1, 1, 1) that hides nothing, made once for each device."""
        if device not in self._masks:
            with torch.inference_mode(
                False
            ):  # evaluation may come first, and training saves the mask for its gradients
                self._masks[device] = torch.ones(1, 1, 1, 1, device=device)
        return self._masks[device]


def head_size(config: PretrainedConfig) -> int:
    """Return the number of elements of one attention head, for a model that supports packed batches."""
    own = getattr(config, "head_dim", None)
    return int(own or config.hidden_size // config.num_attention_heads)


def _install(model: PreTrainedModel, family: Family) -> LayoutSlot:
    pooled = getattr(model.base_model, family.encoder) if family.encoder else model.base_model
    pooling = family.pooling_of(model.config)
    assert pooling is not None  # `why_not_packable` checked this
    layout_slot = LayoutSlot(model, pooled, pooling)
    if family.install is not None:
        family.install(model, layout_slot)
    else:
        register_attention()
        layout_slot.switch_attention(model, ATTENTION_NAME)
    install_keyed_dropout(model, layout_slot)
    install_fused_layers(model, layout_slot)
    if pooling is first_tokens:
        skip_unused_rows(model)
    join_linear_layers(model, layout_slot)
    install_rms_norms(model, layout_slot)
    train_by_onednn(model)
    return layout_slot


def _position_table(model: PreTrainedModel) -> tuple[int, int | None]:
    """Return the row of a sequence's first token in the position table, and the number of tokens that fit.

    The number is None for a model without a table.
    """
    embeddings = getattr(model.base_model, "embeddings", None)
    table = getattr(embeddings, "position_embeddings", None)
    if not isinstance(table, nn.Embedding):
        return 0, None
    # RoBERTa and models like it count from the row after the padding token's row.
    first = 0 if table.padding_idx is None else table.padding_idx + 1
    return first, table.num_embeddings - first
