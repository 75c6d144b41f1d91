"""A step's loss, gradient and evaluation do not depend on how the step was cut: ranks, micro-batches, ZeRO stage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.distributed.tiny_run import ROWS, SAME_LOSS, make_store, reference_losses, tiny_bert, train_and_evaluate
from tests.distributed.worlds import World

STEPS, GLOBAL_SIZE, SEED = 5, 10, 3
# A whole share at once, and several micro-batches a step; 46 rows in steps of 10 end in one of 6, odd for all ranks.
WHOLE, CUT = 10_000, 40


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("stores"))


@pytest.fixture(scope="module")
def reference(store: Path) -> tuple[list[float], list[float]]:
    return reference_losses(store, STEPS, GLOBAL_SIZE, SEED)


@pytest.fixture(scope="module")
def single(world: Callable[[int], World], store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One rank, one micro-batch a step: what all others are held against."""
    return world(1).run(train_and_evaluate, store, tmp_path_factory.mktemp("one"), {"micro_tokens": WHOLE})[0]


CASES = [
    (1, None, CUT),
    (2, None, WHOLE),
    (2, None, CUT),
    (2, 0, CUT),
    (2, 1, CUT),
    (2, 2, WHOLE),
    (2, 2, CUT),
    (2, 3, CUT),
    (3, None, CUT),
    (3, 1, WHOLE),
    (3, 3, CUT),
]


@pytest.mark.parametrize(("ranks", "stage", "micro_tokens"), CASES)
def test_every_way_to_cut_a_step_gives_the_reference(
    world: Callable[[int], World],
    store: Path,
    tmp_path: Path,
    reference: tuple[list[float], list[float]],
    single: dict[str, Any],
    ranks: int,
    stage: int | None,
    micro_tokens: int,
) -> None:
    options = {"stage": stage, "micro_tokens": micro_tokens}
    by_rank = world(ranks).run(train_and_evaluate, store, tmp_path, options)
    losses, norms = reference
    for found in by_rank:
        np.testing.assert_allclose(found["losses"], losses, rtol=2e-5)
        np.testing.assert_allclose(found["losses"], single["losses"], rtol=SAME_LOSS)
        if any(norm is not None for norm in found["norms"]):  # DeepSpeed tells none at fp32 stage 0
            np.testing.assert_allclose(found["norms"], norms, rtol=2e-4)
        assert found["metrics"]["eval_loss"] == pytest.approx(single["metrics"]["eval_loss"], rel=1e-5)
        assert found["metrics"]["eval_accuracy"] == single["metrics"]["eval_accuracy"]
        assert found["logits"].shape == (ROWS["test"], 2)
        np.testing.assert_allclose(found["logits"], single["logits"], rtol=1e-4, atol=1e-4)


def test_one_rank_follows_the_float64_reference(
    reference: tuple[list[float], list[float]], single: dict[str, Any]
) -> None:
    np.testing.assert_allclose(single["losses"], reference[0], rtol=2e-5)
    np.testing.assert_allclose(single["norms"], reference[1], rtol=2e-4)


@pytest.mark.parametrize(("ranks", "stage", "micro_tokens"), [(1, None, CUT), (2, None, WHOLE), (3, 2, CUT)])
def test_dropout_is_the_same_however_a_step_is_cut(
    world: Callable[[int], World], store: Path, tmp_path: Path, ranks: int, stage: int | None, micro_tokens: int
) -> None:
    """Masks belong to the examples, so training curves with dropout on agree as those without do."""
    whole = world(1).run(train_and_evaluate, store, tmp_path, {"model": tiny_bert(dropout=0.2), "micro_tokens": WHOLE})
    options = {"model": tiny_bert(dropout=0.2), "stage": stage, "micro_tokens": micro_tokens}
    for found in world(ranks).run(train_and_evaluate, store, tmp_path, options):
        np.testing.assert_allclose(found["losses"], whole[0]["losses"], rtol=SAME_LOSS)


def test_bf16_under_zero_stays_near_the_reference(
    world: Callable[[int], World], store: Path, tmp_path: Path, reference: tuple[list[float], list[float]]
) -> None:
    found = world(2).run(train_and_evaluate, store, tmp_path, {"stage": 1, "precision": "bf16", "micro_tokens": CUT})
    np.testing.assert_allclose(found[0]["losses"], reference[0], rtol=2e-2)
