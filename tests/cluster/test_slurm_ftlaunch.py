"""Tests `ftlaunch sbatch`, `status`, `logs` and `cancel` on a real SLURM."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.slurm import Cluster
from tests.cluster.slurm_runs import last_step, results, write_run

pytestmark = pytest.mark.cluster


def ftlaunch(cluster: Cluster, folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return cluster.call(sys.executable, "-m", "launcher", *words, cwd=folder, check=False)


def test_a_run_is_submitted_and_followed(cluster: Cluster, tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "my runs"
    folder.mkdir()
    write_run(folder, tiny_model, steps=3)
    done = ftlaunch(cluster, folder, "sbatch", "run.toml", "--cpu", "--nodes", "2", "--train.seed", "7")
    assert done.returncode == 0, done.stderr
    (number,) = re.findall(r"^job (\d+): run, 2 node\(s\)", done.stdout)
    shown = ftlaunch(cluster, folder, "logs", "run", "--follow")
    assert shown.returncode == 0, shown.stderr
    assert cluster.end_of(number)["JobState"] == "COMPLETED", shown.stdout
    assert shown.stdout == (folder / f"run/logs/slurm-{number}.log").read_text()
    assert f"job {number}, restart 0: 2 node(s) x 1 cpu rank(s), {folder}/run" in shown.stdout
    found = results(folder / "run")
    assert (found["world_size"], found["seed"]) == (2, 7)
    status = ftlaunch(cluster, folder, "status", "run").stdout.splitlines()
    assert re.fullmatch(rf"job {number}: COMPLETED on node\[1-2\], \d+:\d\d used", status[0])
    assert status[1].startswith("run: done, step 3, ")


def test_a_run_is_cancelled(cluster: Cluster, tmp_path: Path, tiny_model: Path) -> None:
    write_run(tmp_path, tiny_model, steps=100_000)
    ftlaunch(cluster, tmp_path, "sbatch", "run.toml", "--cpu")
    number = (tmp_path / "run/logs/slurm-job").read_text().strip()
    cluster.wait_until(number, lambda job: last_step(tmp_path / "run") >= 5)
    again = ftlaunch(cluster, tmp_path, "sbatch", "run.toml", "--cpu")
    assert again.returncode == 2
    assert f"run folder '{tmp_path}/run' belongs to job {number} (RUNNING)" in again.stderr
    assert ftlaunch(cluster, tmp_path, "cancel", "run").returncode == 0
    assert cluster.end_of(number)["JobState"] == "CANCELLED"
    cluster.wait_until(number, lambda job: cluster.ranks() == [])
    status = ftlaunch(cluster, tmp_path, "status", "run").stdout
    assert status.startswith(f"job {number}: CANCELLED")
    assert "\nrun: stopped, step " in status


def test_sbatch_refuses_a_partition_that_is_not_there(cluster: Cluster, tmp_path: Path, tiny_model: Path) -> None:
    write_run(tmp_path, tiny_model)
    done = ftlaunch(cluster, tmp_path, "sbatch", "run.toml", "--cpu", "--partition", "none")
    assert done.returncode == 2
    assert "invalid partition" in done.stderr
    assert not (tmp_path / "run/logs/slurm-job").exists()
