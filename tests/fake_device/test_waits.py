"""Tests that a whole step of the Trainer asks a GPU nothing: passes, clipping, update, schedule, callbacks."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ftsys.train.trainer import packing
from tests.distributed.tiny_run import make_store, tiny_bert
from tests.fake_device.cuda_api import fake_gpu
from tests.fake_device.tiny_gpu import WARM, gpu_trainer, small_model
from tests.parity.models.tiny_models import VARIANTS


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("stores"))


def waits_of_step(store: Path, scratch: Path, model: Any, **options: Any) -> list[str]:
    # The proof compares with padded batches, which these tiny models' padding token makes others.
    with fake_gpu() as ledger, patch.object(packing, "why_unproven", lambda *args, **named: None):
        trainer, waits = gpu_trainer(store, scratch, ledger, model=model, **options)
        assert trainer.parts.packing.view is not None
        trainer.train()
    assert len(waits.of_step) > WARM
    return [wait for step in waits.of_step[WARM:] for wait in step]


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_a_step_of_every_packed_family_waits_for_nothing(store: Path, tmp_path: Path, variant: str) -> None:
    found = waits_of_step(store, tmp_path, small_model(variant), precision="bf16", max_steps=WARM + 1)
    assert found == []


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "fp32"},
        {"precision": "bf16", "micro_tokens": 40},
        {"precision": "fp32", "max_grad_norm": 0.0},
        {"precision": "bf16", "max_grad_norm": 0.0},
        {"bf16": True},
        {"fp16": True},
    ],
    ids=str,
)
def test_nor_does_a_step_of_any_precision(store: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    assert waits_of_step(store, tmp_path, tiny_bert(dropout=0.1), **options) == []
