"""A step with a loss or a gradient that is not finite changes nothing on any rank, whatever the engine."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from ftsys.errors import FtsysError
from tests.distributed.tiny_run import make_store, make_trainer
from tests.distributed.worlds import World

STEPS, SPOILED_STEP = 4, 1
ENGINES: list[tuple[int, int | None, str]] = [
    (1, None, "fp32"),
    (1, None, "bf16"),
    (2, None, "fp32"),
    (2, None, "bf16"),
]
ENGINES += [(2, stage, precision) for stage in (0, 1, 2, 3) for precision in ("fp32", "bf16")]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("stores"))


def train_spoiled(store: Path, scratch: Path, options: dict[str, Any], spoil: str) -> dict[str, Any]:
    """Train; from step SPOILED_STEP on for as long as `spoil` says, one example of the step has a loss of infinity."""
    from ftsys.data.batching.plan import plan_epoch
    from ftsys.train.checkpoint.state_dict import export_state
    from ftsys.train.trainer import nonfinite_steps
    from ftsys.train.trainer import training_step as module

    always, gradient_only = spoil == "always", spoil == "gradient"
    trainer = make_trainer(store, scratch, **options)
    spoiled = plan_epoch(trainer.train_dataset.lengths, 3, 0, global_size=10).step(SPOILED_STEP)[0]
    honest = module.loss_per_example
    seen: list[dict[str, torch.Tensor]] = []
    warned: list[str] = []

    def dishonest(logits_SC: torch.Tensor, labels: torch.Tensor, ids_S: torch.Tensor, *more: Any) -> torch.Tensor:
        losses_S = honest(logits_SC, labels, ids_S, *more)
        hit = ids_S == int(spoiled)
        if always and trainer.state.global_step >= SPOILED_STEP:
            hit = hit | (ids_S >= 0)
        if gradient_only and hit.any():  # the square root's slope at zero: a finite value with an infinite slope
            return losses_S + (logits_SC[hit, 0] - logits_SC[hit, 0].detach()).square().sqrt().sum()
        return losses_S + torch.where(hit, 0.0 if gradient_only else float("inf"), 0.0)

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append(export_state(trainer.model_wrapped, trainer.optimizer).weights)

    trainer.add_callback(Watch())
    error = ""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "loss_per_example", dishonest)
        patch.setattr(nonfinite_steps._LOG, "warning", lambda text, *values: warned.append(text % values))
        try:
            trainer.train()
        except FtsysError as found:
            error = str(found)
    history = [line for line in trainer.state.log_history if "loss" in line]
    return {
        "changed": [
            None if one is None else any(not torch.equal(one[name], other[name]) for name in other)
            for one, other in itertools.pairwise(seen)
        ],
        "finite": all(bool(torch.isfinite(tensor).all()) for state in seen if state for tensor in state.values()),
        "lines": [(line["loss"], line.get("skipped_steps"), line["learning_rate"]) for line in history],
        "spoiled": int(spoiled),
        "warned": warned,
        "error": error,
        "steps": trainer.state.global_step,
    }


@pytest.mark.parametrize(("ranks", "stage", "precision"), ENGINES)
@pytest.mark.parametrize("spoil", ["once", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing(
    world: Callable[[int], World],
    store: Path,
    tmp_path: Path,
    ranks: int,
    stage: int | None,
    precision: str,
    spoil: str,
) -> None:
    options = {"stage": stage, "precision": precision, "max_steps": STEPS, "micro_tokens": 40}
    by_rank = world(ranks).run(train_spoiled, store, tmp_path, options, spoil)
    for found in by_rank:
        assert found["error"] == ""
        assert found["steps"] == STEPS
        assert found["finite"]
        assert all(np.isfinite(loss) for loss, _, _ in found["lines"])
        assert [skipped for _, skipped, _ in found["lines"]] == [None, 1, None, None]
        rates = [rate for _, _, rate in found["lines"]]
        assert rates[1] == rates[2] > rates[3]  # the schedule waits, as it does for fp16's scaler
    first = by_rank[0]
    assert first["changed"] == [False, True, True]
    assert len(first["warned"]) == 1
    if spoil == "once":
        assert f"not finite for example ids {first['spoiled']}." in first["warned"][0]
    else:
        assert "every example's loss is finite" in first["warned"][0]


@pytest.mark.parametrize(("ranks", "stage"), [(1, None), (2, None), (2, 0), (2, 2), (2, 3)])
def test_too_many_in_a_row_end_the_run_on_every_rank(
    world: Callable[[int], World], store: Path, tmp_path: Path, ranks: int, stage: int | None
) -> None:
    options = {"stage": stage, "max_steps": 9, "max_nonfinite_steps": 2}
    for found in world(ranks).run(train_spoiled, store, tmp_path, options, "always"):
        assert found["error"].startswith("step 4: ")
        assert "3 steps in a row (train.max_nonfinite_steps = 2)" in found["error"]
        assert found["steps"] == (
            4 if stage is None else 3
        )  # torch's own optimizer skips by itself, read one step late


def train_logging_alone(store: Path, scratch: Path) -> tuple[int, list[int]]:
    """Train with one bad step while rank 0 alone logs lines of its own; returns steps, and the steps logged as bad."""
    from tests.parity.trainer.test_late_reading import spoiled_losses

    trainer = make_trainer(store, scratch, max_steps=STEPS, logging_steps=2)

    class Logs(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if args.process_index == 0:
                trainer.log({"own": 1.0})

    trainer.add_callback(Logs())
    with spoiled_losses(trainer, SPOILED_STEP - 1, 10):
        trainer.train()
    return trainer.state.global_step, [line["step"] for line in trainer.state.log_history if "skipped_steps" in line]


def test_a_rank_may_log_alone_after_a_bad_step(world: Callable[[int], World], store: Path, tmp_path: Path) -> None:
    assert world(2).run(train_logging_alone, store, tmp_path) == [(STEPS, [2])] * 2
