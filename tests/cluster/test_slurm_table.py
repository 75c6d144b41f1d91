"""Tests `ftsys table --slurm` on a real SLURM: an array of runs, submitted once, and the table of their results."""

import os
import re
import signal
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.cluster.slurm import Cluster
from tests.cluster.slurm_runs import results, write_run
from tests.end_to_end.commands import read_json

pytestmark = pytest.mark.cluster


def test_a_table_is_a_job_array(cluster: Cluster, tmp_path: Path, tiny_model: Path) -> None:
    write_run(tmp_path, tiny_model, steps=4)
    table = [sys.executable, "-m", "ftsys", "table", "run.toml", "--models", str(tiny_model), "--seeds", "1..2"]
    submitted = cluster.call(*table, "--slurm", "--cpu", "--at-a-time", "2", cwd=tmp_path, check=False)
    assert submitted.returncode == 0, submitted.stderr
    (number,) = re.findall(r"^job array (\d+): 2 runs", submitted.stdout, re.MULTILINE)
    again = cluster.call(*table, "--slurm", "--cpu", cwd=tmp_path)
    assert "2 runs are in SLURM's queue already" in again.stdout
    here = cluster.call(*table, "--cpu", cwd=tmp_path, check=False)
    assert (here.returncode, "2 runs of this table are in SLURM's queue" in here.stderr) == (2, True), here.stderr
    folders = [tmp_path / f"run/{tiny_model.name}/parity/seed-{seed}" for seed in (1, 2)]
    for task in ("0", "1"):
        cluster.wait_until(f"{number}_{task}", lambda job: job["JobState"] == "COMPLETED")
    assert [results(folder)["seed"] for folder in folders] == [1, 2]
    shown = cluster.call(*table, "--results", cwd=tmp_path)
    assert re.search(rf"^{tiny_model.name} +parity +accuracy ", shown.stdout, re.MULTILINE), shown.stdout
    assert [one["seed"] for one in read_json(tmp_path / "run/table.json")["entries"][0]["seeds"]] == [1, 2]
    nothing = cluster.call(*table, "--slurm", "--cpu", cwd=tmp_path)
    assert "job array" not in nothing.stdout


def test_a_run_that_is_killed_twice_has_failed(cluster: Cluster, tmp_path: Path, tiny_model: Path) -> None:
    """Such as one that needs more memory than a node has: it is not submitted for ever."""
    write_run(tmp_path, tiny_model, steps=100_000)
    table = [sys.executable, "-m", "ftsys", "table", "run.toml", "--models", str(tiny_model), "--seeds", "1"]
    folder = tmp_path / f"run/{tiny_model.name}/parity/seed-1"
    for attempt in (1, 2):
        submitted = cluster.call(*table, "--slurm", "--cpu", cwd=tmp_path, check=False)
        assert submitted.returncode == 0, submitted.stderr
        (number,) = re.findall(r"^job array (\d+): 1 runs", submitted.stdout, re.MULTILINE)
        cluster.wait_until(f"{number}_0", partial(trains, folder, attempt))
        os.kill(cluster.trainers()[0], signal.SIGKILL)
        job = cluster.end_of(f"{number}_0")
        assert (job["JobState"], job["Restarts"]) == ("FAILED", "0"), cluster.log(f"{number}_0")
        assert "a rank was killed" in read_json(folder / "status.json")["reason"]
    again = cluster.call(*table, "--slurm", "--cpu", cwd=tmp_path)
    assert "job array" not in again.stdout
    shown = cluster.call(*table, "--results", cwd=tmp_path, check=False)
    assert "a rank was killed" in shown.stdout + shown.stderr


def trains(folder: Path, attempt: int, _job: dict[str, str]) -> bool:
    """Return True once an attempt trains."""
    path = folder / "status.json"
    status = read_json(path) if path.exists() else {}
    return (status.get("attempt"), status.get("phase")) == (attempt, "train")
