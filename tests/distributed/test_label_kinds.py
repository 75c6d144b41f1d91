"""Class weights and several labels a row: torch's own losses over the global batch, however the step was cut."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.distributed.tiny_run import ROWS, make_store, reference_losses, tiny_bert, train_and_evaluate
from tests.distributed.worlds import World

STEPS, GLOBAL_SIZE, SEED = 5, 10, 3
PAIR, THREE = (0.3, 4.0), (0.5, 3.0, 7.0)
KINDS: dict[str, tuple[str, int, tuple[float, ...] | None, Any]] = {
    "weighted classes": ("int64", 2, PAIR, nn.CrossEntropyLoss(torch.tensor(PAIR).double())),
    "several labels": ("(3,)int8", 3, None, nn.BCEWithLogitsLoss()),
    "weighted labels": ("(3,)int8", 3, THREE, nn.BCEWithLogitsLoss(pos_weight=torch.tensor(THREE).double())),
}
"""Type and number of the labels, their weights, and torch's loss of a whole step."""

CASES = [
    (1, {"micro_tokens": 40}),
    (2, {"micro_tokens": 10_000}),
    (3, {"micro_tokens": 40}),
    (3, {"micro_tokens": 40, "stage": 2}),
    (2, {"micro_tokens": 40, "packing": False}),
]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("stores")
    return {kind: make_store(folder / kind, label_type=form) for kind, (form, *_) in KINDS.items()}


@pytest.fixture(scope="module")
def references(stores: dict[str, Path]) -> dict[str, tuple[list[float], list[float]]]:
    return {
        kind: reference_losses(stores[kind], STEPS, GLOBAL_SIZE, SEED, criterion, labels)
        for kind, (_, labels, _, criterion) in KINDS.items()
    }


@pytest.mark.parametrize(("ranks", "options"), CASES)
def test_every_cut_gives_torchs_loss_of_the_whole_step(
    world: Callable[[int], World],
    stores: dict[str, Path],
    references: dict[str, tuple[list[float], list[float]]],
    tmp_path: Path,
    ranks: int,
    options: dict[str, Any],
) -> None:
    for kind, (_, labels, weights, _) in KINDS.items():
        given = {**options, "model": tiny_bert(labels=labels), "class_weights": weights}
        for found in world(ranks).run(train_and_evaluate, stores[kind], tmp_path / kind, given):
            losses, norms = references[kind]
            np.testing.assert_allclose(found["losses"], losses, rtol=2e-5, err_msg=kind)
            np.testing.assert_allclose(found["norms"], norms, rtol=2e-4, err_msg=kind)
            assert found["logits"].shape == (ROWS["test"], labels)


@pytest.mark.parametrize(("precision", "stage"), [("bf16", None), ("bf16", 2)])
def test_low_precision_has_the_same_loss_but_for_rounding(
    world: Callable[[int], World],
    stores: dict[str, Path],
    references: dict[str, tuple[list[float], list[float]]],
    tmp_path: Path,
    precision: str,
    stage: int | None,
) -> None:
    for kind, (_, labels, weights, _) in KINDS.items():
        model = tiny_bert(labels=labels)
        given = {"precision": precision, "stage": stage, "model": model, "class_weights": weights, "micro_tokens": 40}
        for found in world(2).run(train_and_evaluate, stores[kind], tmp_path / kind, given):
            np.testing.assert_allclose(found["losses"], references[kind][0], rtol=0.05, err_msg=kind)


def test_evaluations_have_the_loss_without_weights(
    world: Callable[[int], World], stores: dict[str, Path], tmp_path: Path
) -> None:
    for kind, (_, labels, weights, _) in KINDS.items():
        given = {"max_steps": 1, "learning_rate": 1e-12, "model": tiny_bert(labels=labels)}
        plain = world(1).run(train_and_evaluate, stores[kind], tmp_path, {**given})[0]
        weighted = world(2).run(train_and_evaluate, stores[kind], tmp_path, {**given, "class_weights": weights})[0]
        assert weighted["metrics"] == pytest.approx(plain["metrics"], rel=1e-5), kind
