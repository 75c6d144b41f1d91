"""Checkpoints are written beside the training: it goes on meanwhile, and an error of the disk reaches every rank."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from ftsys.errors import FtsysError, StorageError
from ftsys.train.checkpoint.training_state import FullState
from ftsys.train.checkpoint.writer import Entries
from tests.distributed.tiny_run import make_store, make_trainer
from tests.distributed.worlds import World


def train_saving(store: Path, scratch: Path, disk: str) -> dict[str, Any]:
    """Train 6 steps with a save after step 2 that waits for step 4, or fails; what each rank found."""
    from ftsys.train.trainer.checkpointers import run_folder

    options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2}
    attempt = run_folder.Attempt(scratch / "checkpoints", "identity", 1, keep=9)
    trainer = make_trainer(store, scratch, checkpointer=run_folder.RunFolderCheckpointer(attempt), **options)
    step_4, there = threading.Event(), []
    honest = run_folder.write_shard

    def slow(folder: Path, shard: FullState, part: int, parts: int) -> Entries:
        if disk == "full" and part == parts - 1:
            raise StorageError("no space left on device")
        assert "step-000002" not in folder.name or step_4.wait(60)
        return honest(folder, shard, part, parts)

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 3:  # training is beyond the step whose checkpoint is under way
                there.append((scratch / "checkpoints/step-000002").exists())
                step_4.set()

    trainer.add_callback(Watch())
    error = ""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folder, "write_shard", slow)
        if disk == "broken":
            patch.setattr(run_folder, "complete", lambda *_: 1 / 0)
        try:
            trainer.train()
        except (FtsysError, ZeroDivisionError) as found:
            error = f"{type(found).__name__}: {found}"
    return {"error": error, "there": there, "step": trainer.state.global_step}


@pytest.mark.parametrize("ranks", [1, 2])
def test_training_goes_on_while_a_checkpoint_is_written(
    world: Callable[[int], World], tmp_path: Path, ranks: int
) -> None:
    store = make_store(tmp_path / "stores")
    for found in world(ranks).run(train_saving, store, tmp_path / "run", "slow"):
        assert found == {"error": "", "there": [False], "step": 6}
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == [
        "step-000002",
        "step-000004",
        "step-000006",
    ]


def test_a_full_disk_ends_every_rank_with_the_same_error(world: Callable[[int], World], tmp_path: Path) -> None:
    store = make_store(tmp_path / "stores")
    for found in world(2).run(train_saving, store, tmp_path / "run", "full"):  # rank 1's, and rank 0 hears of it
        assert found["error"] == "StorageError: no space left on device"
        assert found["step"] == 4  # the next save hears of it; a run is told earlier, by `on_saving_error`
    assert list((tmp_path / "run/checkpoints").iterdir()) == []


def test_a_mistake_of_rank_0_reaches_every_rank(world: Callable[[int], World], tmp_path: Path) -> None:
    store = make_store(tmp_path / "stores")
    first, second = world(2).run(train_saving, store, tmp_path / "run", "broken")
    assert first["error"] == "ZeroDivisionError: division by zero"
    assert second["error"] == "FtsysError: rank 0 failed: ZeroDivisionError: division by zero"
    assert first["step"] == second["step"] == 4
