"""One global batch, split as the planner splits it over ranks and micro-batches: the same losses."""

from pathlib import Path

import pytest

from tests.end_to_end.attempts import RUN_FILE, copy_project, make_project, start
from tests.end_to_end.commands import losses, read_json

SPLITS = {"1 x 2": (1, 320), "2 x 1": (2, 4096), "2 x 2": (2, 160)}
"""Ranks x micro-batches, and the ranks and batch.micro_tokens that have the planner come to it."""


def test_the_planners_splits_give_the_same_losses(tmp_path: Path, minilm_folder: Path) -> None:
    project = make_project(tmp_path / "project", minilm_folder, RUN_FILE.replace("max_steps = 12", "max_steps = 50"))
    found = {}
    for name, (ranks, micro_tokens) in SPLITS.items():
        folder = copy_project(project, name.replace(" ", ""))
        attempt = start(folder, ranks, ["--batch.micro_tokens", str(micro_tokens), "--data.max_length", "40"])
        assert attempt.statuses() == [0] * ranks, attempt.log()
        plan = read_json(folder / "run/plan.json")
        assert f"{plan['ranks']} x {plan['predicted']['micro_batches']}" == name
        assert plan["global_size"] == 16
        found[name] = losses(folder / "run")
    for name in SPLITS:
        assert len(found[name]) == 50
        assert found[name][:5] == pytest.approx(found["1 x 2"][:5], rel=1e-6), name
        assert found[name] == pytest.approx(found["1 x 2"], rel=1e-4), name
