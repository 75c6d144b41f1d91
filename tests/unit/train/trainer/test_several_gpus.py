"""Tests one process that sees several GPUs, simulated on a CPU, where DataParallel works too."""

import logging
from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification

from ftsys.train.finish import save_plain_model
from ftsys.train.trainer.arguments import TrainingArguments
from tests.distributed.tiny_run import make_store, make_trainer


def test_it_trains_on_one_and_saves_a_model_that_reloads_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = TrainingArguments.__post_init__

    def with_two_gpus(arguments: TrainingArguments) -> None:
        made(arguments)
        arguments._n_gpu = 2

    monkeypatch.setattr(TrainingArguments, "__post_init__", with_two_gpus)
    with caplog.at_level(logging.WARNING):
        trainer = make_trainer(make_store(tmp_path / "stores"), tmp_path / "out", max_steps=2)
    trainer.train()
    save_plain_model(trainer, tmp_path / "model")
    _, info = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    notices = [record.getMessage() for record in caplog.records if "sees 2 GPUs" in record.getMessage()]
    assert len(notices) == 1
    assert "ftlaunch run, or torchrun --nproc-per-node 2" in notices[0]
