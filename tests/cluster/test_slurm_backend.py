"""Tests `ftlaunch run` inside a SLURM allocation: one srun, whose tasks are the agents."""

import os
import re
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.hosts import wait_for
from tests.cluster.slurm import Cluster
from tests.cluster.slurm_runs import write_run
from tests.cluster.test_hostfile import FOREVER, SAVES, SIGNED, pids
from tests.fake_ranks import doubles, processes_of

pytestmark = pytest.mark.cluster


@pytest.fixture
def submit(cluster: Cluster, tmp_path: Path) -> Callable[..., str]:
    """`submit(program, *words)` submits a job on two nodes that runs only `ftlaunch run`, and returns its number."""

    def submitted(program: str, *words: str) -> str:
        environ = doubles(tmp_path, program)
        command = [sys.executable, "-m", "launcher", "run", "run.toml", "--cpu", *words]
        return cluster.submit("--nodes=2", f"--wrap=exec {shlex.join(command)}", cwd=tmp_path, environ=environ)

    return submitted


def both_signed(folder: Path) -> bool:
    return all((folder / f"sign-{rank}").exists() for rank in (0, 1))


def test_a_rank_on_each_node(cluster: Cluster, submit: Callable[..., str], tmp_path: Path) -> None:
    number = submit(SIGNED + "print('result of', RANK)\n")
    assert cluster.end_of(number)["ExitCode"] == "0:0", cluster.log(number)
    announced, result = cluster.log(number).splitlines()
    assert announced.startswith(
        f"ftlaunch: slurm (inside SLURM job {number}): torchrun starts 2 CPU ranks on node1, node2"
    )
    assert result == "result of 0"
    assert [(tmp_path / f"sign-{rank}").read_text() for rank in (0, 1)] == ["node1\n", "node2\n"]


def test_a_killed_rank_ends_the_job(cluster: Cluster, submit: Callable[..., str], tmp_path: Path) -> None:
    number = submit(FOREVER)
    wait_for(lambda: both_signed(tmp_path))
    (pid,) = pids(tmp_path, 1)
    os.kill(pid, signal.SIGKILL)
    assert cluster.end_of(number)["ExitCode"] == "1:0"
    last = cluster.log(number).splitlines()[-1]
    assert last.startswith("error: rank 1 on node2 was killed by SIGKILL")
    wait_for(lambda: not processes_of(tmp_path))


@pytest.mark.parametrize("whom", [["--batch"], []], ids=["the batch shell", "the step"])
def test_a_signal_stops_the_ranks_of_all_nodes(
    cluster: Cluster, submit: Callable[..., str], tmp_path: Path, whom: list[str]
) -> None:
    number = submit(SAVES.replace("SIGINT", "SIGUSR1"))
    wait_for(lambda: both_signed(tmp_path))
    cluster.call("scancel", *whom, "--signal=USR1", number)
    assert cluster.end_of(number)["ExitCode"] == "75:0", cluster.log(number)
    assert [(tmp_path / f"sign-{rank}").read_text().splitlines()[1] for rank in (0, 1)] == ["SIGUSR1", "SIGUSR1"]
    assert len(cluster.log(number).splitlines()) == 1, "neither srun nor ftlaunch complains"
    wait_for(lambda: not processes_of(tmp_path))


def test_more_nodes_than_the_job_has(cluster: Cluster, submit: Callable[..., str], tmp_path: Path) -> None:
    number = submit(SIGNED, "--nodes", "3")
    assert cluster.end_of(number)["ExitCode"] == "2:0"
    assert cluster.log(number) == "error: 3 nodes were requested, but there is only 2 in the SLURM allocation.\n"
    assert not (tmp_path / "run").exists()


def test_within_a_step_that_holds_the_cores(cluster: Cluster, tmp_path: Path) -> None:
    """As from the shell of `srun --pty bash`: the agents' step shares what the shell's step holds."""
    environ = doubles(tmp_path, SIGNED)
    inner = f"{shlex.join([sys.executable, '-m', 'launcher', 'run', 'run.toml', '--cpu'])} > inner.log 2>&1"
    cluster.call("srun", "-N1", "-n1", "-c2", f"--chdir={tmp_path}", "bash", "-c", inner, environ=environ, check=False)
    assert (tmp_path / "sign-0").exists(), (tmp_path / "inner.log").read_text()


SHOWN = """
import os
from launcher.command_lines import srun_prefix
command = [*srun_prefix([os.environ["SLURM_JOB_NODELIST"]], os.environ), "printenv", "CUDA_VISIBLE_DEVICES"]
os.execvp(command[0], command)
"""


@pytest.mark.parametrize("asked", [["--gpus-per-task=1"], ["--gpus=4", "--ntasks-per-gpu=1"], ["--gpus-per-node=4"]])
def test_one_task_has_the_gpus_that_a_job_asked_for_its_own_tasks(
    cluster: Cluster, tmp_path: Path, asked: list[str]
) -> None:
    number = cluster.submit(
        "--nodes=1", "--ntasks=4", *asked, f"--wrap=exec {shlex.join([sys.executable, '-c', SHOWN])}", cwd=tmp_path
    )
    assert cluster.end_of(number)["ExitCode"] == "0:0", cluster.log(number)
    assert cluster.log(number) == "0,1,2,3\n"


def test_the_doctor_of_one_node_with_two_ranks(cluster: Cluster, tmp_path: Path, tiny_model: Path) -> None:
    write_run(tmp_path, tiny_model)
    words = ["doctor", "run.toml", "--cpu", "--gpus-per-node", "2", "--seconds", "120"]
    command = shlex.join([sys.executable, "-m", "launcher", *words])
    number = cluster.submit("--nodes=1", "--cpus-per-task=2", f"--wrap=exec {command}", cwd=tmp_path)
    cluster.end_of(number)
    for found in (r"^ok +rendezvous +2 process", r"^ok +all-reduce +gloo"):
        assert re.search(found, cluster.log(number), re.MULTILINE), cluster.log(number)
