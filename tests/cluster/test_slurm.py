"""Tests slurm/*.sh on a real SLURM: jobs that finish, also after they were stopped."""

import sys
from pathlib import Path

import pytest

from ftsys.config import load_run
from tests.cluster.slurm import Cluster
from tests.cluster.slurm_runs import SHORT, STEPS, last_step, results, weights, write_run
from tests.end_to_end.commands import call, losses, read_json

pytestmark = pytest.mark.cluster


@pytest.fixture
def mrpc(repository: Path) -> str:
    return str(repository / "slurm/mrpc.sh")


def train(cluster: Cluster, mrpc: str, folder: Path, *options: str, step: int = 5) -> str:
    """Submit the folder's run on two nodes and wait until it has made some steps; returns the job's number."""
    number = cluster.submit("--nodes=2", *options, mrpc, "run.toml", cwd=folder)
    cluster.wait_until(number, lambda job: last_step(folder / "run") >= step)
    return number


def test_mrpc_on_two_nodes_is_what_two_local_ranks_compute(
    cluster: Cluster, mrpc: str, tmp_path: Path, minilm_folder: Path
) -> None:
    number = cluster.submit("--nodes=2", mrpc, *SHORT, cwd=tmp_path)
    job = cluster.end_of(number)
    assert (job["JobState"], job["NumNodes"]) == ("COMPLETED", "2"), cluster.log(number)
    there, here = tmp_path / f"runs/mrpc-{number}", tmp_path / "local"
    found = results(there)
    assert list(cluster.scratch.glob("ftsys-*")) == [], "each node removes its copies"
    assert Path(found["store"]).is_dir(), "the store that is named is the shared one, not a node's copy"
    assert str(cluster.scratch) not in (there / "config.toml").read_text()
    wanted = "mrpc" if cluster.environment().get("FTSYS_GLUE_DIR") else "paraphrase"
    assert (found["world_size"], found["task"], found["steps"]) == (2, wanted, 4)
    local = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--module", "ftsys", "train"]
    done = call(*local, there / "config.toml", "--output_dir", here, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert losses(there) == losses(here)
    assert found["metrics"] == results(here)["metrics"]
    assert cluster.ranks() == []


def test_usr1_becomes_a_checkpoint_and_the_job_goes_on(
    cluster: Cluster, mrpc: str, tmp_path: Path, tiny_model: Path, expected: str
) -> None:
    write_run(tmp_path, tiny_model)
    number = train(cluster, mrpc, tmp_path)
    cluster.call("scancel", "--batch", "--signal=USR1", number)
    cluster.wait_until(number, lambda job: job["Restarts"] == "1")
    status = read_json(tmp_path / "run/status.json")
    assert (status["state"], status["exit"], status["attempt"]) == ("stopped", 75, 1), "saved before it was requeued"
    assert status["step"] < STEPS, "the run was over before it could be stopped"
    job = cluster.end_of(number)
    log = cluster.log(number)
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1"), log
    assert f"stopped early with a checkpoint: job {number} goes back into the queue" in log
    assert f"job {number}, restart 1: 2 node(s) x 1 cpu rank(s)" in log, "the log of both starts is kept"
    assert weights(tmp_path / "run") == expected
    assert cluster.ranks() == []


def test_the_time_limit_gives_its_warning(cluster: Cluster, mrpc: str, tmp_path: Path, tiny_model: Path) -> None:
    write_run(tmp_path, tiny_model, steps=100_000)
    number = train(cluster, mrpc, tmp_path, "--time=2", "--signal=B:USR1@60")
    job = cluster.wait_until(number, lambda job: job["Restarts"] == "1")
    cluster.call("scancel", number)
    assert job["JobState"] in ("PENDING", "RUNNING", "COMPLETING")
    assert "stopped early with a checkpoint" in cluster.log(number)


def test_scontrol_requeue(cluster: Cluster, mrpc: str, tmp_path: Path, tiny_model: Path, expected: str) -> None:
    write_run(tmp_path, tiny_model)
    number = train(cluster, mrpc, tmp_path)
    cluster.call("scontrol", "requeue", number)
    job = cluster.end_of(number)
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1"), cluster.log(number)
    assert weights(tmp_path / "run") == expected
    assert cluster.ranks() == []


def test_scancel_leaves_a_sound_checkpoint_and_no_process(
    cluster: Cluster, mrpc: str, tmp_path: Path, tiny_model: Path, expected: str
) -> None:
    write_run(tmp_path, tiny_model)
    number = train(cluster, mrpc, tmp_path, step=50)
    cluster.call("scancel", number)
    job = cluster.end_of(number)
    assert (job["JobState"], job["Restarts"]) == ("CANCELLED", "0"), cluster.log(number)
    cluster.wait_until(number, lambda job: cluster.ranks() == [])
    verified = call(sys.executable, "-m", "ftsys", "verify", "run", cwd=tmp_path)
    assert verified.returncode == 0, verified.stderr
    assert not (tmp_path / "run/results.json").exists()
    number = cluster.submit("--nodes=2", mrpc, "run.toml", cwd=tmp_path)
    assert cluster.end_of(number)["JobState"] == "COMPLETED", cluster.log(number)
    assert weights(tmp_path / "run") == expected


def test_two_jobs_on_one_node(cluster: Cluster, mrpc: str, tmp_path: Path, tiny_model: Path) -> None:
    write_run(tmp_path, tiny_model)
    words = ["--nodes=1", "--nodelist=node1", mrpc, "run.toml", "--output_dir"]
    numbers = [cluster.submit(*words, name, cwd=tmp_path) for name in ("first", "second")]
    ended = [cluster.end_of(number) for number in numbers]
    assert [job["JobState"] for job in ended] == ["COMPLETED"] * 2, [cluster.log(number) for number in numbers]
    assert ended[1]["StartTime"] < ended[0]["EndTime"], "they ran at the same time"
    assert weights(tmp_path / "first") == weights(tmp_path / "second")
    assert [results(tmp_path / name)["world_size"] for name in ("first", "second")] == [1, 1]


def test_a_rank_for_each_gpu(cluster: Cluster, mrpc: str, tmp_path: Path, tiny_model: Path) -> None:
    write_run(tmp_path, tiny_model, steps=3)
    number = cluster.submit("--gres=gpu:8", mrpc, "run.toml", cwd=tmp_path, environ={"FTSYS_DEVICE": "cpu"})
    job = cluster.end_of(number)
    assert job["JobState"] == "COMPLETED", cluster.log(number)
    assert job["TresPerNode"] == "gres:gpu:8"
    assert f"job {number}, restart 0: 1 node(s) x 8 cpu rank(s)" in cluster.log(number)
    assert results(tmp_path / "run")["world_size"] == 8


def test_an_array_of_two_tasks_and_two_seeds(
    cluster: Cluster, repository: Path, tmp_path: Path, tiny_model: Path
) -> None:
    tasks = [write_run(tmp_path, tiny_model, steps=3, name=name) for name in ("one.toml", "two.toml")]
    tasks[1].write_text(tasks[1].read_text().replace('"parity"', '"oddness"'))
    asked = {"FTSYS_GLUE_TASKS": " ".join(path.name for path in tasks), "FTSYS_SEEDS": "1 2"}
    script = str(repository / "slurm/glue.sh")
    number = cluster.submit("--array=0-4", script, "--batch.global_size", "4", cwd=tmp_path, environ=asked)
    for each in range(5):
        assert cluster.end_of(f"{number}_{each}")["JobState"] == "COMPLETED", cluster.log(f"{number}_{each}")
    assert "nothing to do: 2 task(s) x 2 seed(s) are --array=0-3" in cluster.log(f"{number}_4")
    folders = [tmp_path / f"runs/glue-{number}/{task}-seed-{seed}" for task in ("one", "two") for seed in (1, 2)]
    assert sorted((tmp_path / f"runs/glue-{number}").iterdir()) == folders
    assert [load_run(folder / "config.toml").train.seed for folder in folders] == [1, 2, 1, 2]
    table = call(sys.executable, "-m", "ftsys", "report", *folders, cwd=tmp_path)
    assert table.returncode == 0, table.stderr
    assert table.stdout.count("parity") >= 2
    assert table.stdout.count("oddness") >= 2


def test_a_task_of_an_array_goes_back_alone(
    cluster: Cluster, repository: Path, tmp_path: Path, tiny_model: Path
) -> None:
    """To SLURM the number of the array, which one of its tasks has as its own, means all of its tasks."""
    write_run(tmp_path, tiny_model)
    asked = {"FTSYS_GLUE_TASKS": "run.toml", "FTSYS_SEEDS": "1 2"}
    number = cluster.submit("--array=0-1", str(repository / "slurm/glue.sh"), cwd=tmp_path, environ=asked)
    names = [f"{number}_{task}" for task in (0, 1)]
    folders = [tmp_path / f"runs/glue-{number}/run-seed-{seed}" for seed in (1, 2)]
    cluster.wait_until(number, lambda job: min(map(last_step, folders)) >= 5)
    first = 0 if cluster.job(names[0])["JobId"] == number else 1
    assert cluster.job(names[first])["JobId"] == number
    cluster.call("scancel", "--batch", "--signal=USR1", names[first])
    ended = [cluster.end_of(name) for name in names]
    assert [job["JobState"] for job in ended] == ["COMPLETED"] * 2, [cluster.log(name) for name in names]
    assert [ended[first]["Restarts"], ended[1 - first]["Restarts"]] == ["1", "0"]
    assert [(folder / "logs/slurm-job").read_text().strip() for folder in folders] == names
    assert all((folder / f"logs/slurm-{name}.log").exists() for folder, name in zip(folders, names, strict=True))
