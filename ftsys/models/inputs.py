"""Builds the inputs of a model from a packed or a padded batch."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GenericForSequenceClassification

from ftsys.data.batching.collate import Batch, PackedBatch
from ftsys.errors import ConfigError
from ftsys.kernels.dropout import token_keys
from ftsys.kernels.triton_layers.choice import in_triton
from ftsys.models.packed import PackedView


def model_inputs(batch: Batch, view: PackedView | None, keys_T: torch.Tensor | None = None) -> dict[str, Any]:
    """Return the keyword arguments of the Hugging Face model's `forward` for `batch`, without labels.

    `keys_T` are the `dropout_keys` of a packed batch, int64 (T,), for training; a padded batch has none.

    Raises:
        TypeError: `batch` is packed and `view` is None.
    """
    if isinstance(batch, PackedBatch):
        if view is None:
            raise TypeError("a packed batch was made for a model without a packed view")
        texts = (batch.input_ids_T, batch.position_ids_T, batch.token_type_ids_T)
        return view.inputs(*texts, batch.cu_seqlens, batch.max_seqlen, keys_T)
    inputs = {"input_ids": batch.input_ids_SL, "attention_mask": batch.attention_mask_SL}
    if batch.token_type_ids_SL is not None:
        inputs["token_type_ids"] = batch.token_type_ids_SL
    return inputs


def dropout_keys(batch: Batch, seed: int, step: int, kernel: str = "padded") -> torch.Tensor | None:
    """Return the dropout keys of a packed batch, int64 (T,); None for a padded batch.

    They depend on the seed, the optimizer step, the example ids and the positions only; `kernel` is the view's, and
    says how they are computed.
    """
    if not isinstance(batch, PackedBatch):
        return None
    if in_triton(kernel, device=batch.input_ids_T.device.type):
        from ftsys.kernels.triton_layers import keys

        bounds = (batch.cu_seqlens, batch.max_seqlen)
        return keys.token_keys(seed, step, *bounds, batch.example_ids_S, batch.position_ids_T)
    tokens = batch.input_ids_T.numel()  # given to repeat_interleave, which would otherwise synchronize with the GPU
    example_ids_T = batch.example_ids_S.repeat_interleave(batch.cu_seqlens.diff(), output_size=tokens)
    return token_keys(seed, step, example_ids_T, batch.position_ids_T)


def name_pad_token(model: nn.Module, pad_id: int) -> None:
    """Set `pad_token_id` in the configuration of a model that has none.

    Decoders often have none. transformers' head needs it to find a sequence's last token, and refuses more than one
    sequence without it. It is saved with the model, so that the model gives the same results for padded batches later.
    """
    if isinstance(model, PreTrainedModel):
        for config in (model.config, model.config.get_text_config()):  # where images are read too, heads ask the second
            if getattr(config, "pad_token_id", None) is None:
                config.pad_token_id = pad_id


def check_pad_token(model: nn.Module, pad_id: int) -> None:
    """Check that the head's padding token is the tokenizer's, `pad_id`.

    Raises:
        ConfigError: they differ, so the head would take padding for a sequence's last token.
    """
    if not isinstance(model, GenericForSequenceClassification):
        return
    known = model.config.get_text_config().pad_token_id
    if known != pad_id:
        raise ConfigError(
            f"the tokenizer pads with token {pad_id}, the model's config.json has pad_token_id={known!r}: its "
            f"head would take padding for the last token. Write pad_token_id={pad_id} into config.json."
        )
