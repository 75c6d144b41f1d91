"""Tests jobs whose nodes die, lose their slurmd or are cut off: they finish elsewhere, with the same weights."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.cluster.hosts import wait_for
from tests.cluster.slurm import Cluster
from tests.cluster.slurm_runs import STEPS, last_step, weights, write_run
from tests.end_to_end.commands import call, read_json

pytestmark = pytest.mark.cluster


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path) -> Path:
    write_run(tmp_path, tiny_model)
    return tmp_path


@pytest.fixture
def training(cluster: Cluster, repository: Path, folder: Path) -> str:
    """Start a job that trains on node1 and node2 and has a checkpoint; returns its number."""
    number = cluster.submit("--nodes=2", str(repository / "slurm/mrpc.sh"), "run.toml", cwd=folder)
    job = cluster.wait_until(number, lambda job: last_step(folder / "run") >= 45)
    assert job["NodeList"] == "node[1-2]"
    return number


def finishes_elsewhere(cluster: Cluster, number: str, folder: Path, lost: str, expected: str) -> None:
    """Check that the restarted job runs without the lost node and ends with the same result."""
    job = cluster.end_of(number)
    log = cluster.log(number)
    assert job["JobState"] == "COMPLETED", log
    assert int(job["Restarts"]) >= 1
    assert lost not in cluster.call("scontrol", "show", "hostnames", job["NodeList"]).stdout.split()
    assert weights(folder / "run") == expected
    assert read_json(folder / "run/results.json")["steps"] == STEPS
    verified = call(sys.executable, "-m", "ftsys", "verify", "run", cwd=folder)
    assert verified.returncode == 0, verified.stderr


@pytest.mark.parametrize("lost", ["node1", "node2"])
def test_a_node_that_dies(cluster: Cluster, training: str, folder: Path, expected: str, lost: str) -> None:
    cluster.crash(lost)
    finishes_elsewhere(cluster, training, folder, lost, expected)
    wait_for(lambda: cluster.ranks() == [], seconds=60)


@pytest.mark.parametrize("lost", ["node1", "node2"])
def test_a_slurmd_that_is_killed(cluster: Cluster, training: str, folder: Path, expected: str, lost: str) -> None:
    os.kill(cluster.slurmd_of(lost), signal.SIGKILL)
    # slurmctld finds this out by itself after SlurmdTimeout, but such a short run is over before.
    cluster.call("scontrol", "update", f"nodename={lost}", "state=down", "reason=slurmd was killed")
    finishes_elsewhere(cluster, training, folder, lost, expected)
    wait_for(lambda: cluster.ranks() == [], seconds=60)


def test_a_node_that_is_cut_off_and_comes_back(cluster: Cluster, training: str, folder: Path, expected: str) -> None:
    cluster.network.cut("node2")
    cluster.wait_until(training, lambda job: job["Restarts"] != "0" and job["JobState"] == "RUNNING")
    cluster.network.heal("node2")
    finishes_elsewhere(cluster, training, folder, "node2", expected)
    wait_for(lambda: cluster.ranks() == [], seconds=100)
    assert weights(folder / "run") == expected


def test_a_rank_that_is_killed_in_start_up(cluster: Cluster, repository: Path, folder: Path) -> None:
    """The other ranks stop as they do before a time limit, but the job has failed and does not go back."""
    number = cluster.submit("--nodes=2", str(repository / "slurm/mrpc.sh"), "run.toml", cwd=folder)
    cluster.wait_until(number, lambda job: (folder / "run/status.json").exists())
    os.kill(cluster.trainers()[0], signal.SIGKILL)
    job = cluster.end_of(number)
    assert (job["JobState"], job["Restarts"]) == ("FAILED", "0"), cluster.log(number)
    status = read_json(folder / "run/status.json")
    assert (status["state"], status["step"]) == ("failed", 0), status
