"""Tests adapters, frozen parts and layer-wise decay on two ranks, under DDP and ZeRO, through a resume."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.test_resume import CUT_AT, STEPS, train_part
from tests.distributed.tiny_run import make_store, tiny_bert
from tests.distributed.worlds import World


def train_chosen(
    store: Path, scratch: Path, options: dict[str, Any], chosen: dict[str, Any], stop: int | None, resume: bool
) -> dict[str, Any]:
    """Train as `train_part`, with the trained weights that the run file's sections `chosen` ask for."""
    from ftsys.config import build_run
    from ftsys.train.checkpoint.optimizer_layout import frozen_weights
    from ftsys.train.trainable.choose import choose_trained

    model = tiny_bert()
    choose_trained(model, build_run({"output_dir": "runs/x", "task": {"name": "mrpc"}, **chosen}), [])
    before = {name: weight.clone() for name, weight in frozen_weights(model).items()}
    found = train_part(store, scratch, options | {"model": model}, stop, resume)
    weights = found.pop("weights")
    compared = before if weights else {}  # rank 0 has the weights; bf16 rounds them
    kept = {name: bool(((weights[name] - old).abs() <= old.abs() / 128).all()) for name, old in compared.items()}
    return {**found, "frozen": kept}


LORA = {"lora": {"r": 2, "target_modules": "all"}}
FROZEN = {"train": {"freeze": ["embeddings", "layers.0"]}}


@pytest.mark.parametrize(
    ("chosen", "stage", "precision"),
    [(LORA, None, "bf16"), (LORA, 1, "fp32"), (LORA, 2, "bf16"), (FROZEN, 0, "bf16")],
)
def test_two_ranks_that_resume_have_the_losses_of_one(
    world: Callable[[int], World], tmp_path: Path, chosen: dict[str, Any], stage: int | None, precision: str
) -> None:
    store, options = make_store(tmp_path / "stores"), {"micro_tokens": 60, "layer_decay": 0.5}
    whole = world(1).run(train_chosen, store, tmp_path / "whole", dict(options), chosen, None, False)[0]
    engine = options | {"stage": stage, "precision": precision}
    world(2).run(train_chosen, store, tmp_path / "cut", dict(engine), chosen, CUT_AT, False)
    resumed = world(2).run(train_chosen, store, tmp_path / "cut", dict(engine), chosen, None, True)[0]
    assert resumed["step"] == STEPS
    assert resumed["losses"] == pytest.approx(whole["losses"], rel=1e-5 if precision == "fp32" else 0.05)
    assert resumed["frozen"]
    assert all(resumed["frozen"].values())
