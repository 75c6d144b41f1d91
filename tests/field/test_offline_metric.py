"""The `evaluate` library finds the GLUE metric that `ftsys offline` has put into its caches."""

from pathlib import Path

import numpy as np
import pytest

from ftsys.offline.hf_caches import HfCaches, put_glue_metric


def test_evaluate_finds_the_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate = pytest.importorskip("evaluate")
    caches = HfCaches.under(tmp_path / "hf")
    assert put_glue_metric(caches).new
    assert not put_glue_metric(caches).new
    monkeypatch.setattr("evaluate.config.HF_MODULES_CACHE", str(caches.modules))
    monkeypatch.chdir(tmp_path)
    metric = evaluate.load("glue", "mrpc")
    assert type(metric).__module__ == "ftsys.offline.hf_metric"
    found = metric.compute(predictions=np.array([0, 1, 1]), references=[0, 1, 0])
    assert found == {"accuracy": pytest.approx(2 / 3), "f1": pytest.approx(2 / 3)}
    assert not list(tmp_path.glob("*.arrow"))
    with pytest.raises(Exception, match="'mrcp' is no GLUE task"):
        evaluate.load("glue", "mrcp")
