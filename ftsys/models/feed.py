"""How a batch enters a model, whichever layout it has."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GenericForSequenceClassification

from ftsys.data.collate import Batch, PackedBatch
from ftsys.errors import ConfigError
from ftsys.kernels.dropout import token_keys
from ftsys.models.packed import PackedView


def model_inputs(batch: Batch, view: PackedView | None, seed_and_step: tuple[int, int] | None = None) -> dict[str, Any]:
    """Keyword arguments of the Hugging Face model's `forward` for `batch`, without labels.

    `seed_and_step`, given in training, makes a packed batch's dropout depend on them and on the examples alone.
    """
    if isinstance(batch, PackedBatch):
        if view is None:
            raise TypeError("a packed batch was made for a model without a packed view")
        keys_T = None if seed_and_step is None else _dropout_keys(batch, *seed_and_step)
        texts = (batch.input_ids_T, batch.position_ids_T, batch.token_type_ids_T)
        return view.inputs(*texts, batch.cu_seqlens, batch.max_seqlen, keys_T)
    inputs = {"input_ids": batch.input_ids_SL, "attention_mask": batch.attention_mask_SL}
    if batch.token_type_ids_SL is not None:
        inputs["token_type_ids"] = batch.token_type_ids_SL
    return inputs


def _dropout_keys(batch: PackedBatch, seed: int, step: int) -> torch.Tensor:
    example_ids_T = batch.example_ids_S.repeat_interleave(batch.cu_seqlens.diff())
    return token_keys(seed, step, example_ids_T, batch.position_ids_T)


def name_pad_token(model: nn.Module, pad_id: int) -> None:
    """Write the token that batches are padded with into the configuration of a model that names none.

    Decoders often name none, and transformers' head finds a sequence's last token by it: without one it refuses more
    than one sequence. It is saved with the model, which then answers a padded batch elsewhere as it did here.
    """
    if isinstance(model, PreTrainedModel) and getattr(model.config, "pad_token_id", None) is None:
        model.config.pad_token_id = pad_id


def check_pad_token(model: nn.Module, pad_id: int) -> None:
    """Hold the token that pads against the one that the head looks for.

    Raises:
        ConfigError: the head would take padding for a sequence's last token.
    """
    if isinstance(model, GenericForSequenceClassification) and model.config.pad_token_id != pad_id:
        raise ConfigError(
            f"the tokenizer pads with token {pad_id}, the model's config.json has "
            f"pad_token_id={model.config.pad_token_id!r}: its head would take padding for the last token. "
            f"Write pad_token_id={pad_id} into config.json."
        )
