"""Tests fp16 with a GradScaler on a fake GPU, and with DeepSpeed's own scaler on a CPU that stands in for one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.tiny_run import make_store, make_trainer, tiny_bert
from tests.distributed.worlds import World
from tests.fake_device.cuda_api import fake_gpu
from tests.fake_device.tiny_gpu import gpu_trainer
from tests.parity.trainer.test_late_reading import spoiled_losses


def losses_of(trainer: Any) -> list[float]:
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def test_a_scaler_on_the_gpu_follows_fp32(tmp_path: Path) -> None:
    store, found = make_store(tmp_path / "stores"), []
    for options in ({"precision": "fp32"}, {"fp16": True}):
        with fake_gpu() as ledger:
            trainer, _ = gpu_trainer(store, tmp_path, ledger, model=tiny_bert(), logging_steps=1, **options)
            trainer.train()
            found.append(losses_of(trainer))
    assert trainer.accelerator.scaler.is_enabled()
    assert found[1] == pytest.approx(found[0], rel=2e-2)


def test_a_step_that_the_scaler_skips_leaves_the_schedule_alone(tmp_path: Path) -> None:
    with fake_gpu() as ledger:
        store = make_store(tmp_path / "stores")
        trainer, _ = gpu_trainer(store, tmp_path, ledger, model=tiny_bert(), fp16=True, logging_steps=1)
        before = trainer.args.learning_rate
        with spoiled_losses(trainer, step=1, global_size=8):
            trainer.train()
        lines = [line for line in trainer.state.log_history if "loss" in line]
    assert [line.get("skipped_steps") for line in lines] == [None, 1, None, None, None, None]
    assert lines[2]["learning_rate"] == lines[1]["learning_rate"] < before
    assert trainer.lr_scheduler.last_epoch == 5
    assert trainer.accelerator.scaler.get_scale() == 32768.0  # halved once


def train_under_deepspeed(store: Path, scratch: Path, stage: int, spoil: bool) -> dict[str, Any]:
    from deepspeed.accelerator import get_accelerator

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(get_accelerator()), "is_fp16_supported", lambda self: True)
        trainer = make_trainer(store, scratch, stage=stage, precision="fp16", max_steps=6)
        if spoil:
            with spoiled_losses(trainer, step=1, global_size=10):
                trainer.train()
        else:
            trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    return {
        "losses": [line["loss"] for line in lines],
        "skipped": [line.get("skipped_steps") for line in lines],
        "scale": trainer.model_wrapped.optimizer.cur_scale
        if stage == 0
        else trainer.model_wrapped.optimizer.loss_scale,
    }


@pytest.mark.parametrize("stage", [1, 2])
def test_deepspeeds_scaler_skips_the_bad_step(world: Callable[[int], World], tmp_path: Path, stage: int) -> None:
    store = make_store(tmp_path / "stores")
    plain, spoiled = (world(2).run(train_under_deepspeed, store, tmp_path, stage, spoil)[0] for spoil in (False, True))
    assert plain["skipped"] == [None] * 6
    assert spoiled["skipped"] == [None, 1, None, None, None, None]
    assert spoiled["losses"][0] == plain["losses"][0]
    assert spoiled["scale"] < plain["scale"]
