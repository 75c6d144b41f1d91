"""Tests that scoring on a GPU gives the CPU's scores, and that the host waits once a window, for its results."""

from pathlib import Path

import numpy as np

from ftsys.score.classifier import Classifier
from tests.fake_device.cuda_api import fake_gpu
from tests.parity.score.tiny_classifiers import PAIRS, save_classifier


def test_a_window_waits_once_for_a_gpu(tmp_path: Path) -> None:
    save_classifier(tmp_path, "bert")
    expected = Classifier(tmp_path, device="cpu").predict(PAIRS)
    with fake_gpu() as ledger:
        ours = Classifier(tmp_path)
        assert ours.layout == "packed"
        ours.predict(PAIRS, batch_tokens=40)
        ledger.waits.clear()
        found = ours.predict(PAIRS, batch_tokens=40)
        waits = list(ledger.waits)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=1e-6)
    assert found.labels == expected.labels
    assert len(waits) == 1, waits
