"""A whole run with `[lora]`: the model that it writes, merged or as an adapter, predicts as the run did."""

import json
from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from ftsys.cli import main
from ftsys.config import load_run, resolve_task
from ftsys.errors import ConfigError
from ftsys.export.command import _check_whole
from ftsys.finished.run import open_finished
from ftsys.score.classifier import Classifier
from ftsys.train.setup import load_model
from tests.end_to_end.attempts import make_project, start


@pytest.mark.parametrize("merge", ["true", "false"])
def test_the_files_of_a_run_with_an_adapter(merge: str, tmp_path: Path, minilm_folder: Path) -> None:
    project = make_project(tmp_path, minilm_folder)
    words = ["--lora.r", "2", "--lora.merge", merge, "--train.max_steps", "4"]
    attempt = start(project, 1, words)
    assert attempt.statuses() == [0], attempt.log()
    run = project / "run"
    adapter = run / ("adapter" if merge == "true" else "model")
    assert (adapter / "adapter_config.json").exists()
    assert (run / "model" / "model.safetensors").exists() == (merge == "true")
    results = json.loads((run / "results.json").read_text())
    assert (results["lora"]["r"], results["layout"]) == (2, "packed")
    task = resolve_task(load_run(str(project / "run.toml"), []))
    ours, _ = load_model(run / "model", task, 1)
    base = AutoModelForSequenceClassification.from_pretrained(project / "model", num_labels=2)
    theirs = peft.PeftModel.from_pretrained(base, str(adapter))
    ids = torch.arange(5, 15)[None]
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(ids).logits, theirs.eval()(ids).logits, rtol=1e-4, atol=1e-5)
    use_afterwards(run, merge == "true")


def use_afterwards(run: Path, merged: bool) -> None:
    """Score a text, calibrate and export: an adapter alone is enough for all but the export."""
    (score,) = Classifier(run, precision="fp32").predict([("a cat", "a dog")]).scores
    assert score.sum() == pytest.approx(1.0)
    assert main(["calibrate", str(run)]) == 0
    assert (run / "model/calibration.json").exists()
    if not merged:
        with pytest.raises(ConfigError, match=r"is an adapter without its model \(lora\.merge = false\)"):
            _check_whole(open_finished(run))
