"""A run that keeps its best model and ends early does so as without interruption, wherever it is killed or stopped."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

from tests.end_to_end.attempts import copy_project, finish, make_project, start

WORDS = tuple(
    """--train.keep_best loss --train.early_stopping.metric loss --train.early_stopping.patience 3
    --train.max_steps 40 --train.eval_every 2 --train.save_every 2 --train.learning_rate 0.03""".split()
)
RANKS = 2


def interrupt(rank: int, where: str) -> None:
    """In rank 0: send itself a signal at a step's evaluation, or at the end, when the model is written."""
    name, moment = where.split()
    if rank != 0:
        return
    from ftsys.train import finish
    from ftsys.train.callbacks.early_stopping import EarlyStop

    number = getattr(signal, f"SIG{name}")
    if moment == "end":
        finish._save_model = lambda *given: os.kill(os.getpid(), number)
        return
    on_prediction_step = EarlyStop.on_prediction_step

    def hit(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step == int(moment):
            os.kill(os.getpid(), number)
        on_prediction_step(self, args, state, control, **more)

    EarlyStop.on_prediction_step = hit


def outcome(folder: Path) -> tuple[Any, ...]:
    results = json.loads((folder / "run/results.json").read_text())
    return results["best"], results["steps"], results["metrics"]


def test_interrupted_runs_end_with_the_same_best_model(tmp_path: Path, minilm_folder: Path) -> None:
    project = make_project(tmp_path / "project", minilm_folder)
    weights = finish(project, RANKS, WORDS)
    best, steps, _ = outcome(project)
    assert 2 < best["step"] == steps - 6 < 34, "the test needs a best step within the run"
    folder = copy_project(project, "interrupted")
    for where, status in {
        f"TERM {best['step']}": 75,
        f"KILL {best['step'] + 2}": -signal.SIGKILL,
        f"TERM {steps}": 75,
        "KILL end": -signal.SIGKILL,
    }.items():
        attempt = start(folder, RANKS, WORDS, (interrupt, where))
        assert attempt.statuses()[0] == status, f"{where}\n{attempt.log()}"
        assert not (folder / "run/results.json").exists()
    assert finish(folder, RANKS, WORDS) == weights
    assert outcome(folder) == outcome(project)
    shutil.rmtree(folder)


def test_a_run_goes_on_in_another_folder_to_the_same_best_model(tmp_path: Path, minilm_folder: Path) -> None:
    project = make_project(tmp_path / "project", minilm_folder)
    weights = finish(project, RANKS, WORDS)
    best, steps, _ = outcome(project)
    folder = copy_project(project, "moved")
    attempt = start(folder, RANKS, WORDS, (interrupt, f"TERM {steps - 2}"))
    assert attempt.statuses() == [75] * RANKS, attempt.log()
    newest = max((folder / "run/checkpoints").glob("step-*"))
    (folder / "run").rename(folder / "elsewhere")
    asked = (*WORDS, "--train.resume", str(folder / "elsewhere/checkpoints" / newest.name))
    assert finish(folder, RANKS, asked) == weights
    assert outcome(folder) == outcome(project)
    assert not (folder / f"run/checkpoints/step-{best['step']:06d}").exists()
    shutil.rmtree(folder)


def test_a_checkpoint_whose_best_model_is_gone_is_refused_at_once(tmp_path: Path, minilm_folder: Path) -> None:
    project = make_project(tmp_path / "project", minilm_folder)
    finish(project, 1, WORDS)
    best, _, _ = outcome(project)
    root = project / "run/checkpoints"
    newest = max(root.glob("step-*"))
    (project / "run").rename(project / "elsewhere")
    shutil.rmtree(project / f"elsewhere/checkpoints/step-{best['step']:06d}")
    attempt = start(project, 1, (*WORDS, "--train.resume", str(project / "elsewhere/checkpoints" / newest.name)))
    assert attempt.statuses() == [2]
    assert "the run ends with its best model" in attempt.log()
    assert not (project / "run").exists()
