"""Starts as people write them under SLURM and MPI: a process for each rank, a sweep of tasks, a step within a step.

One line a case, with the right value in it.
"""

import json
import warnings
from pathlib import Path

import pytest

from ftsys.errors import LaunchError
from ftsys.train.scheduler_world import first_host, join_tasks
from launcher.command_lines import is_within_step, srun_command
from tests.end_to_end.attempts import Attempt, make_project, start

Environ = dict[str, str]


def srun(rank: int, size: int, local: int, **more: str) -> Environ:
    """The variables of one task of `srun --ntasks=SIZE`."""
    named = {"PROCID": rank, "NTASKS": size, "STEP_NUM_TASKS": size, "LOCALID": local, "JOB_ID": 77, "STEP_ID": 0}
    return {f"SLURM_{name}": str(value) for name, value in named.items()} | {f"SLURM_{k}": v for k, v in more.items()}


def open_mpi(rank: int, size: int, local: int, local_size: int) -> Environ:
    named = {"RANK": rank, "SIZE": size, "LOCAL_RANK": local, "LOCAL_SIZE": local_size}
    return {f"OMPI_COMM_WORLD_{name}": str(value) for name, value in named.items()}


def hydra(rank: int, size: int, local: int, local_size: int) -> Environ:
    named = {"PMI_RANK": rank, "PMI_SIZE": size, "MPI_LOCALRANKID": local, "MPI_LOCALNRANKS": local_size}
    return {name: str(value) for name, value in named.items()}


ONE = {"STEP_NUM_NODES": "1"}
TWO = {"STEP_NUM_NODES": "2", "STEP_NODELIST": "127.0.0.[1-2]", "STEP_TASKS_PER_NODE": "4(x2)", "NODEID": "1"}
UNEVEN = TWO | {"STEP_TASKS_PER_NODE": "4,2"}


@pytest.mark.parametrize(
    ("environ", "rank", "size", "local", "local_size", "address"),
    [
        (srun(0, 2, 0, **ONE), 0, 2, 0, 2, "127.0.0.1"),
        (srun(1, 2, 1, **ONE), 1, 2, 1, 2, "127.0.0.1"),
        (srun(1, 2, 1, NNODES="1"), 1, 2, 1, 2, "127.0.0.1"),  # a container that passes on few variables
        (srun(5, 8, 1, **TWO), 5, 8, 1, 4, "127.0.0.1"),
        (srun(5, 6, 1, **UNEVEN), 5, 6, 1, 2, "127.0.0.1"),
        (srun(5, 8, 1, **TWO) | {"MASTER_ADDR": "node7"}, 5, 8, 1, 4, "node7"),
        (srun(3, 4, 3, **ONE) | {"CUDA_VISIBLE_DEVICES": "0"}, 3, 4, 0, 4, "127.0.0.1"),  # --gpus-per-task=1
        (srun(3, 4, 3, **ONE) | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, 3, 4, 3, 4, "127.0.0.1"),
        (open_mpi(1, 2, 1, 2), 1, 2, 1, 2, "127.0.0.1"),
        (open_mpi(3, 4, 1, 2) | {"MASTER_ADDR": "node7"}, 3, 4, 1, 2, "node7"),
        (srun(0, 2, 0, **TWO) | open_mpi(3, 4, 1, 2) | {"MASTER_ADDR": "a"}, 3, 4, 1, 2, "a"),  # srun started orted
        (hydra(1, 2, 1, 2), 1, 2, 1, 2, "127.0.0.1"),
        ({"MV2_COMM_WORLD_" + k[16:]: v for k, v in open_mpi(1, 2, 1, 2).items()}, 1, 2, 1, 2, "127.0.0.1"),
    ],
)
def test_tasks_form_one_world(
    environ: Environ, rank: int, size: int, local: int, local_size: int, address: str
) -> None:
    assert f"started {size} tasks" in join_tasks(environ)
    named = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
    assert [environ[name] for name in named] == [*map(str, (rank, size, local, local_size)), address]
    assert 20_000 <= int(environ["MASTER_PORT"]) < 30_000


@pytest.mark.parametrize(
    "environ",
    [
        {},
        srun(0, 1, 0),  # ftlaunch's own agent, or `srun --pty bash`
        {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},  # a job's script
        srun(1, 4, 1, **ONE) | {"RANK": "0", "WORLD_SIZE": "8"},  # torchrun in each task
        srun(1, 4, 1, **ONE) | {"FTSYS_TASKS": "alone"},
        open_mpi(0, 1, 0, 1),
        {"PMI_SIZE": "1", "PMI_RANK": "0"},
    ],
)
def test_other_processes_stay_as_they_are(environ: Environ) -> None:
    before = dict(environ)
    assert (join_tasks(environ), environ) == ("", before)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        (
            {**srun(0, 2, 0, **ONE), "SLURM_PROCID": ""},
            "SLURM_PROCID='' is not a number below 2: start the run with `ftl",
        ),
        (srun(2, 2, 0, **ONE), "SLURM_PROCID='2' is not a number below 2"),
        (srun(0, 2, 5, **ONE), "SLURM_LOCALID='5' is not a number below 2"),
        (srun(0, 8, 0, **(TWO | {"STEP_TASKS_PER_NODE": "8"})), "SLURM_STEP_TASKS_PER_NODE='8' and SLURM_NODEID='1'"),
        (open_mpi(3, 4, 1, 2), "set MASTER_ADDR to its name for all tasks (mpirun -x MASTER_ADDR=NAME)"),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, "MPI_LOCALNRANKS='' is not a number below 3"),
    ],
)
def test_what_the_variables_do_not_tell_is_asked_for(environ: Environ, said: str) -> None:
    with pytest.raises(LaunchError) as caught:
        join_tasks(environ)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("n[08-11,14],m3", "n08"),
        ("gpu-a[3,5]-ib", "gpu-a3-ib"),
        ("rack1-n[001-128]", "rack1-n001"),
    ],
)
def test_first_host_of_slurms_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_steps_and_restarts_have_ports_of_their_own() -> None:
    environs = [
        srun(0, 2, 0, **ONE),
        srun(1, 2, 1, **ONE),
        srun(0, 2, 0, **ONE, STEP_ID="1"),
        srun(0, 2, 0, **ONE, JOB_ID="78"),
        srun(0, 2, 0, **ONE, RESTART_COUNT="1"),
    ]
    for environ in environs:
        join_tasks(environ)
    ports = [environ["MASTER_PORT"] for environ in environs]
    assert ports[0] == ports[1]
    assert len(set(ports)) == 4


# Whole runs


def as_task(rank: int, text: str) -> None:
    """Give a rank of `attempts` the variables of a task in place of a launcher's."""
    import os

    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name)
    settings = json.loads(text)[rank]
    os.environ.update(settings["environ"])
    import sys

    from ftsys.cli import main

    sys.exit(main(["train", "run.toml", "--train.max_steps", "2", *settings["words"]]))


def tasks(folder: Path, minilm: Path, environs: list[Environ], words: list[list[str]]) -> Attempt:
    make_project(folder, minilm)
    settings = [{"environ": environ, "words": each} for environ, each in zip(environs, words, strict=True)]
    return start(folder, len(environs), prepare=(as_task, json.dumps(settings)))


@pytest.mark.parametrize("starter", ["srun", "mpirun"])
def test_a_process_for_each_rank_trains_as_one_world(starter: str, tmp_path: Path, minilm_folder: Path) -> None:
    environs = {
        "srun": [srun(rank, 2, rank, **ONE, JOB_ID="4711") for rank in range(2)],
        "mpirun": [open_mpi(rank, 2, rank, 2) | {"PMIX_NAMESPACE": str(tmp_path)} for rank in range(2)],
    }[starter]
    attempt = tasks(tmp_path, minilm_folder, environs, [[], []])
    assert attempt.statuses() == [0, 0], attempt.log()
    assert json.loads((tmp_path / "run/results.json").read_text())["world_size"] == 2
    assert f"{starter} started 2 tasks: they train together" in attempt.log()


def test_a_sweep_of_tasks_is_no_world(tmp_path: Path, minilm_folder: Path) -> None:
    environs = [srun(rank, 2, rank, **ONE, JOB_ID="4712") for rank in range(2)]
    seeds = [["--train.seed", str(seed)] for seed in (1, 2)]
    attempt = tasks(tmp_path, minilm_folder, environs, seeds)
    assert attempt.statuses() == [2, 2], attempt.log()
    assert "the ranks of one world have different runs" in attempt.log()
    assert "FTSYS_TASKS=alone" in attempt.log()


def test_a_sweep_trains_where_it_says_so(tmp_path: Path, minilm_folder: Path) -> None:
    environs = [srun(rank, 2, rank, **ONE) | {"FTSYS_TASKS": "alone"} for rank in range(2)]
    attempt = tasks(tmp_path, minilm_folder, environs, [["--output_dir", name] for name in ("one", "two")])
    assert attempt.statuses() == [0, 0], attempt.log()
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two")]
    assert [found["world_size"] for found in results] == [1, 1]


# A step within a step


@pytest.mark.parametrize(
    ("environ", "within"),
    [
        ({"SLURM_JOB_ID": "3"}, False),  # salloc, or the script of a job
        ({"SLURM_JOB_ID": "3", "SLURM_STEP_ID": "0"}, True),  # srun --pty bash
        ({"SLURM_JOB_ID": "3", "SLURM_STEP_ID": "4294967290"}, True),  # salloc with an interactive step
        ({}, False),
    ],
)
def test_agents_share_the_step_that_starts_them(environ: Environ, within: bool) -> None:
    assert is_within_step(environ) is within
    command = srun_command("python", ("node1",), environ | {"SLURM_CPU_BIND": "quiet"})
    assert ("--overlap" in command, "SLURM_CPU_BIND" in command) == (within, within)


@pytest.mark.parametrize(("environ", "warns"), [(srun(1, 4, 1, **ONE), True), ({"FTSYS_TASKS": "alone"}, False)])
def test_a_script_is_told_that_its_tasks_train_alone(
    environ: Environ, warns: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from ftsys.train.trainer.arguments import TrainingArguments
    from ftsys.train.trainer.trainer import Trainer
    from tests.parity.trainer.sides import BASE, model

    for name, value in (srun(1, 4, 1, **ONE) | environ).items():
        monkeypatch.setenv(name, value)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Trainer(model(), TrainingArguments(output_dir=str(tmp_path), **BASE))
    assert any("srun started 4 tasks, and each trains alone" in str(each.message) for each in caught) is warns
