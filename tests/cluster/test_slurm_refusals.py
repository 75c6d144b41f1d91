"""Tests SLURM jobs that cannot work: they end with the reason before a rank is started."""

import subprocess
from pathlib import Path

import pytest

from tests.cluster.slurm import Cluster
from tests.cluster.slurm_runs import last_step, write_run

pytestmark = pytest.mark.cluster


@pytest.fixture
def mrpc(repository: Path) -> str:
    return str(repository / "slurm/mrpc.sh")


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path) -> Path:
    write_run(tmp_path, tiny_model)
    return tmp_path


def refused(cluster: Cluster, number: str) -> list[str]:
    """Check that a job ended with status 2 and left nothing running; returns the errors in its log."""
    job = cluster.end_of(number, seconds=120)
    log = cluster.log(number)
    assert (job["JobState"], job["ExitCode"]) == ("FAILED", "2:0"), log
    assert cluster.ranks() == []
    assert "Traceback" not in log
    return [line for line in log.splitlines() if line.startswith("error: ")]


def test_no_gpus_in_the_allocation(cluster: Cluster, mrpc: str, folder: Path) -> None:
    number = cluster.submit("--nodes=2", mrpc, "run.toml", cwd=folder, environ={"FTSYS_DEVICE": "cuda"})
    text = "no GPUs in the allocation: sbatch --gpus-per-node=N, or set FTSYS_DEVICE=cpu to compute on CPUs."
    assert refused(cluster, number) == [f"error: {text}"]
    assert not (folder / "run").exists()


def test_fewer_cpus_than_ranks(cluster: Cluster, mrpc: str, folder: Path) -> None:
    """As where the site has no default: four GPUs and one CPU."""
    words = ["--gpus-per-node=4", "--cpus-per-task=1", mrpc, "run.toml"]
    number = cluster.submit(*words, cwd=folder, environ={"FTSYS_DEVICE": "cuda"})
    assert refused(cluster, number) == ["error: 1 CPU(s) for 4 ranks: sbatch --cpus-per-task=N, 4 or more."]


def test_unequal_nodes(cluster: Cluster, mrpc: str, folder: Path) -> None:
    words = ["--nodes=2", "--gpus=12", "--nodelist=node3,node4", mrpc, "run.toml"]
    number = cluster.submit(*words, cwd=folder, environ={"FTSYS_DEVICE": "cpu"})
    text = "unequal nodes: node4 has 4 GPU(s), the first node 8. Ask for --gpus-per-node."
    assert refused(cluster, number) == [f"error: {text}"]


def test_no_virtual_environment(cluster: Cluster, mrpc: str, folder: Path) -> None:
    number = cluster.submit(mrpc, "run.toml", cwd=folder, environ={"FTSYS_VENV": f"{folder}/none"})
    (line,) = refused(cluster, number)
    assert line.startswith(f"error: there is no virtual environment: '{folder}/none/bin/python' is missing.")


def test_a_folder_that_is_not_shared(cluster: Cluster, mrpc: str, folder: Path) -> None:
    (folder / "run").mkdir()
    inside = cluster.network.inside("node2", Path("/"))
    subprocess.run([*inside, "mount", "-t", "tmpfs", "tmpfs", str(folder / "run")], check=True)
    number = cluster.submit("--nodelist=node1,node2", "--nodes=2", mrpc, "run.toml", cwd=folder)
    text = f"'{folder}/run' is not shared: node2 does not see what the first node wrote there."
    assert refused(cluster, number) == [f"error: {text}"]


def test_a_run_file_with_a_mistake(cluster: Cluster, mrpc: str, folder: Path) -> None:
    number = cluster.submit(mrpc, "run.toml", "--train.sed", "7", cwd=folder)
    (line,) = refused(cluster, number)
    assert "did you mean train.seed" in line


def test_what_only_the_ranks_find(cluster: Cluster, mrpc: str, folder: Path) -> None:
    """Data that cannot be used, and the folder of another run: torchrun would make both of them a plain 1."""
    rows = (folder / "rows.csv").read_text()
    (folder / "rows.csv").write_text(rows + "a number,none\n")
    errors = refused(cluster, cluster.submit("--nodes=2", mrpc, "run.toml", cwd=folder))
    assert all("rows.csv, line 66: " in line for line in errors)
    (folder / "rows.csv").write_text(rows)
    words = [mrpc, "run.toml", "--train.max_steps", "4", "--train.eval_every", "4"]
    assert cluster.end_of(cluster.submit(*words, cwd=folder))["JobState"] == "COMPLETED"
    number = cluster.submit("--nodes=2", *words, "--train.seed", "7", cwd=folder)
    job = cluster.end_of(number)
    assert (job["JobState"], job["ExitCode"]) == ("FAILED", "77:0"), cluster.log(number)


def test_a_number_of_restarts_that_is_none(cluster: Cluster, mrpc: str, folder: Path) -> None:
    number = cluster.submit(mrpc, "run.toml", cwd=folder, environ={"FTSYS_MAX_RESTARTS": "ten"})
    assert refused(cluster, number) == ["error: FTSYS_MAX_RESTARTS='ten' is not a number of restarts."]


def test_the_restart_limit(cluster: Cluster, mrpc: str, folder: Path) -> None:
    number = cluster.submit("--nodes=2", mrpc, "run.toml", cwd=folder, environ={"FTSYS_MAX_RESTARTS": "0"})
    cluster.wait_until(number, lambda job: last_step(folder / "run") >= 5)
    cluster.call("scancel", "--batch", "--signal=USR1", number)
    job = cluster.end_of(number)
    assert (job["JobState"], job["ExitCode"], job["Restarts"]) == ("FAILED", "75:0", "0"), cluster.log(number)
    assert "error: restart limit reached (FTSYS_MAX_RESTARTS=0): stopped early with a checkpoint." in cluster.log(
        number
    )
    assert cluster.ranks() == []


def test_a_run_folder_that_another_live_job_owns(cluster: Cluster, mrpc: str, folder: Path) -> None:
    first = cluster.submit("--nodes=1", mrpc, "run.toml", cwd=folder)
    cluster.wait_until(first, lambda job: (folder / "run/logs/slurm-job").exists())
    second = cluster.submit("--nodes=1", mrpc, "run.toml", cwd=folder)
    text = f"run folder '{folder}/run' belongs to job {first} (RUNNING): name another output_dir, or wait."
    assert refused_while_another_runs(cluster, second) == [f"error: {text}"]
    assert cluster.end_of(first)["JobState"] == "COMPLETED", cluster.log(first)


def refused_while_another_runs(cluster: Cluster, number: str) -> list[str]:
    job = cluster.end_of(number)
    assert (job["JobState"], job["ExitCode"]) == ("FAILED", "2:0"), cluster.log(number)
    return [line for line in cluster.log(number).splitlines() if line.startswith("error: ")]
