"""Tests a decoder classifier under the Trainer: packed and padded batches give the same training and padding token."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from ftsys.errors import ConfigError
from tests.distributed.tiny_run import FACTS, VOCABULARY, make_store, make_trainer


def tiny_llama(pad_token_id: int | None) -> LlamaForSequenceClassification:
    """Two layers of width 16, two heads on one key head; the same weights each time."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        initializer_range=0.3,
        pad_token_id=pad_token_id,
        num_labels=2,
    )
    return LlamaForSequenceClassification(config)


def test_packed_and_padded_training_give_the_same_losses(tmp_path: Path) -> None:
    store, losses = make_store(tmp_path / "stores"), []
    for packing in (True, False):
        model = tiny_llama(pad_token_id=None)
        trainer = make_trainer(store, tmp_path / str(packing), model=model, packing=packing, max_steps=3)
        assert (trainer.parts.packing.view is not None) == packing
        assert model.config.pad_token_id == FACTS.pad_id
        trainer.train()
        losses.append([line["loss"] for line in trainer.state.log_history if "loss" in line])
        losses[-1].append(trainer.evaluate()["eval_loss"])
    assert len(losses[0]) == 4
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_padded_batches_of_another_padding_token_are_refused(tmp_path: Path) -> None:
    """The head looks for the last token that is not the configuration's padding token."""
    store = make_store(tmp_path / "stores")
    trainer = make_trainer(store, tmp_path, model=tiny_llama(pad_token_id=5))
    assert trainer.parts.packing.view is not None  # packed, it is not asked
    with pytest.raises(ConfigError, match=r"pads with token 0.*pad_token_id=5.*Write pad_token_id=0 into config.json"):
        make_trainer(store, tmp_path, model=tiny_llama(pad_token_id=5), packing=False)
