"""Tests the text of slurm/*.sh; tests/cluster runs them."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ("glue.sh", "job.sh", "mrpc.sh", "node.sh")


@pytest.mark.parametrize("name", NAMES)
def test_a_script_is_strict_and_can_be_started(repository: Path, name: str) -> None:
    path = repository / "slurm" / name
    lines = path.read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in lines
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", str(path)], check=True)


def test_there_is_no_other_script(repository: Path) -> None:
    assert sorted(path.name for path in (repository / "slurm").iterdir()) == list(NAMES)


def test_shellcheck_finds_nothing(repository: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed (Debian: apt install shellcheck)")
    scripts = [str(repository / "slurm" / name) for name in NAMES]
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", ["mrpc.sh", "glue.sh"])
def test_what_a_job_asks_of_slurm(repository: Path, name: str) -> None:
    asked = [line for line in (repository / "slurm" / name).read_text().splitlines() if line.startswith("#SBATCH")]
    for option in ("--signal=B:USR1@120", "--requeue", "--open-mode=append", "--ntasks-per-node=1"):
        assert f"#SBATCH {option}" in asked
    assert not [line for line in asked if "partition" in line or "account" in line or "gres" in line]


@pytest.mark.parametrize(
    ("name", "words", "glue", "expected"),
    [
        (
            "mrpc.sh",
            ["--train.seed", "7"],
            "",
            "{home}/configs/runs/mrpc.toml --output_dir runs/mrpc-17 --task.name paraphrase --data.source synthetic "
            "--train.seed 7",
        ),
        (
            "mrpc.sh",
            [],
            "/my glue",
            "{home}/configs/runs/mrpc.toml --output_dir runs/mrpc-17 --data.source '/my glue'",
        ),
        ("mrpc.sh", ["other.toml", "--train.seed", "7"], "/my glue", "other.toml --train.seed 7"),
        (
            "glue.sh",
            ["--train.epochs", "5"],
            "/my glue",
            "{home}/configs/runs/mrpc.toml --task.name sst2 --data.source '/my glue' --train.seed 2 "
            "--output_dir runs/glue-16/sst2-seed-2 --train.epochs 5",
        ),
    ],
)
def test_what_is_handed_to_job_sh(
    repository: Path, tmp_path: Path, name: str, words: list[str], glue: str, expected: str
) -> None:
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm/job.sh").write_text('printf "%s\\0" "$@"')
    environment = {
        "PATH": os.environ["PATH"],
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": "17",
        "SLURM_ARRAY_JOB_ID": "16",
        "SLURM_ARRAY_TASK_ID": "4",
        "FTSYS_GLUE_DIR": glue,
    }
    command = ["bash", str(repository / "slurm" / name), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split("\0")[:-1] == shlex.split(expected.format(home=tmp_path))


def test_a_folder_that_is_not_the_projects(repository: Path, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "17"}
    command = ["bash", str(repository / "slurm/mrpc.sh")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"error: '{tmp_path}' is not ftsys's folder: submit from there, or set FTSYS_HOME to it.\n"


def test_a_scratch_folder_that_somebody_else_made_is_refused(repository: Path, tmp_path: Path) -> None:
    """Its name can be guessed, and it holds code."""
    planted = tmp_path / "ftsys-17-0-node1"
    (planted / "extensions").mkdir(parents=True)
    slurm = {"SLURM_JOB_ID": "17", "SLURMD_NODENAME": "node1", "SLURM_TMPDIR": str(tmp_path)}
    environment = {"PATH": os.environ["PATH"], "FTSYS_GPUS": "0", "FTSYS_DEVICE": "cpu", **slurm}
    command = ["bash", str(repository / "slurm/node.sh"), "run", "run.toml"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"error: '{planted}' cannot be made, or somebody else made it: remove it on node1." in done.stderr
    assert list(planted.iterdir()) == [planted / "extensions"], "it is not ours to remove"
    command[-2:] = ["clean"]
    subprocess.run(command, env=environment, check=True)
    assert not planted.exists(), "here it is ours: the user's own"


@pytest.mark.parametrize(("place", "searched"), [("home", "{home}:/mine"), ("home/models", "/mine")])
def test_python_searches_the_checkout_that_a_job_was_submitted_from_and_no_other_folder(
    repository: Path, tmp_path: Path, place: str, searched: str
) -> None:
    home, python = tmp_path / "home", tmp_path / "python"
    for folder in ("slurm", "ftsys", "models/ftsys"):
        (home / folder).mkdir(parents=True)
    for name in ("ftsys/__init__.py", "models/ftsys/__init__.py"):
        (home / name).touch()
    shutil.copy(repository / "slurm/job.sh", home / "slurm")
    python.write_text('#!/bin/sh\necho "$PYTHONSAFEPATH $PYTHONPATH $*" >&2\nexit 3\n')
    python.chmod(0o755)
    slurm = {"SLURM_JOB_ID": "17", "SLURM_JOB_NUM_NODES": "1", "FTSYS_PYTHON": str(python)}
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": "/mine", **slurm}
    command = ["bash", str(home / "slurm/job.sh"), "run.toml"]
    done = subprocess.run(command, cwd=tmp_path / place, env=environment, capture_output=True, text=True, check=False)
    said = f"1 {searched.format(home=home)} -P -m launcher.slurm.in_job job 17-0 run.toml\n"
    assert (done.returncode, done.stderr) == (2, said)


STAND_INS = {
    "python": 'printf "%s\\n" cuda "$RUN" 12345 0\n',
    "scontrol": 'case $2 in hostnames) echo node1 ;; node) echo NodeAddr=10.1 ;; *) echo " StdOut=$RUN/log" ;; esac\n',
    "srun": 'echo "$*" > "$RUN/asked"\nenv > "$RUN/known"\nexit 3\n',
}


@pytest.mark.parametrize(
    ("asked", "options", "hidden"),
    [
        ({"SLURM_CPUS_PER_TASK": "8"}, "--cpus-per-task=8", ()),
        ({"SLURM_JOB_CPUS_PER_NODE": "64(x2),32"}, "--cpus-per-task=32", ()),
        ({"SLURM_JOB_CPUS_PER_NODE": "9,10"}, "--cpus-per-task=9", ()),
        ({}, "", ()),
        ({"SLURM_GPUS_PER_TASK": "1"}, "--gpus-per-node=4", ("GPUS_PER_TASK",)),
        ({"SLURM_GPU_BIND": "single:1", "SLURM_CPUS_PER_GPU": "8"}, "", ("GPU_BIND", "CPUS_PER_GPU")),
        ({"SLURM_NTASKS_PER_GPU": "1"}, "--gpus-per-node=4", ("NTASKS_PER_GPU",)),
        ({"SLURM_TRES_PER_TASK": "gres/gpu=1"}, "--gpus-per-node=4", ("TRES_PER_TASK",)),
        ({"SLURM_TRES_PER_TASK": "cpu=8"}, "", ("TRES_PER_TASK",)),
    ],
)
def test_a_nodes_task_has_all_that_the_job_has_there(
    repository: Path, tmp_path: Path, asked: dict[str, str], options: str, hidden: tuple[str, ...]
) -> None:
    """SLURM gives a step one CPU where it asks for none, and by default the GPUs that a job asked for one task."""
    for name, text in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": "17", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "node1", "SLURM_GPUS_ON_NODE": "4"}
    own = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "FTSYS_PYTHON": str(tmp_path / "python"), "RUN": str(tmp_path)}
    command = ["bash", str(repository / "slurm/job.sh"), "run.toml"]
    done = subprocess.run(command, env=own | slurm | asked, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "")
    step, _, _ = (tmp_path / "asked").read_text().partition(" bash ")
    assert step.split()[2:] == options.split()
    known = (tmp_path / "known").read_text()
    assert not [name for name in hidden if f"SLURM_{name}=" in known]
