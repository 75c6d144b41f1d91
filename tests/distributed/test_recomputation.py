"""Activations computed again in the backward pass change no loss, whatever engine runs them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ftsys.train.trainer.arguments import RECOMPUTATION
from tests.distributed.tiny_run import SAME_LOSS, make_store, tiny_bert, train_and_evaluate
from tests.distributed.worlds import World

AGAIN = {RECOMPUTATION: True, f"{RECOMPUTATION}_kwargs": {"use_reentrant": False}}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("stores"))


@pytest.mark.parametrize("stage", [None, 0, 2, 3])
def test_recomputation_changes_nothing(
    world: Callable[[int], World], store: Path, tmp_path: Path, stage: int | None
) -> None:
    options = {"model": tiny_bert(dropout=0.2), "stage": stage, "micro_tokens": 40, "max_steps": 4}
    kept = world(2).run(train_and_evaluate, store, tmp_path, options)
    again = world(2).run(train_and_evaluate, store, tmp_path, options | AGAIN)
    for before, after in zip(kept, again, strict=True):
        np.testing.assert_allclose(after["losses"], before["losses"], rtol=SAME_LOSS)
        np.testing.assert_allclose(after["logits"], before["logits"], rtol=1e-4, atol=1e-5)
