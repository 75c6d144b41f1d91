"""Tests that the peers of scoring compute the same scores in the rows' order, and leave no files behind."""

import tempfile
from pathlib import Path

import numpy as np
import pytest

from ftsys.bench.harness.models import model_folders
from ftsys.bench.predict.peers import SIZED, ours

ROWS = [("A cat sat.", "A dog ran away from a cat."), ("Yes.", "No."), ("It rained all day long.", "It was dry.")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folders(["tiny"], tmp_path_factory.mktemp("models"))["tiny"]


@pytest.mark.parametrize("peer", ["pipeline", "trainer"])
def test_a_peer_has_our_scores_and_leaves_nothing(
    peer: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    scores = SIZED[peer](model, "fp32")(ROWS, 2)
    np.testing.assert_allclose(scores, ours(model, "fp32")(ROWS), atol=1e-5)
    assert list(tmp_path.iterdir()) == []
