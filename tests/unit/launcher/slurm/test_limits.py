"""Tests the limits of a batch script's numbers and letters, and what goes together."""

import dataclasses
import re
from typing import Any

import pytest

from ftsys.errors import LaunchError
from launcher.slurm.batch_script import Job, render
from tests.unit.launcher.slurm.test_batch_script import APPTAINER, ENROOT, PLAIN


def refusal_of(job: Job) -> str:
    try:
        render(job)
    except LaunchError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("option", "field", "least"),
    [
        ("--nodes", "nodes", 1),
        ("--gpus-per-node", "gpus_per_node", 0),
        ("--cpus-per-node", "cpus_per_node", 0),
        ("--warning-seconds", "warning_seconds", 1),
        ("--max-restarts", "max_restarts", 0),
        ("--at-a-time", "array_limit", 0),
    ],
)
def test_the_least_of_each_number(option: str, field: str, least: int) -> None:
    smallest: dict[str, Any] = {field: least}
    assert refusal_of(dataclasses.replace(PLAIN, **smallest)) == ""
    smallest[field] = least - 1
    too_small = refusal_of(dataclasses.replace(PLAIN, **smallest))
    assert too_small == f"{option} {least - 1} is too small: give {least} or more."


@pytest.mark.parametrize(("cpus", "gpus", "refused"), [(8, 8, False), (7, 8, True), (1, 2, True), (0, 8, False)])
def test_each_rank_has_a_cpu_where_their_number_is_given(cpus: int, gpus: int, refused: bool) -> None:
    said = refusal_of(dataclasses.replace(PLAIN, cpus_per_node=cpus, gpus_per_node=gpus))
    assert ("is less than one for each of" in said) is refused


@pytest.mark.parametrize(("seconds", "refused"), [(65_535, False), (65_536, True)])
def test_the_earliest_warning_that_slurm_takes(seconds: int, refused: bool) -> None:
    assert ("is more than SLURM takes" in refusal_of(dataclasses.replace(PLAIN, warning_seconds=seconds))) is refused


@pytest.mark.parametrize(
    ("letter", "refused"), [("\x1f", True), (" ", False), ("~", False), ("\x7f", True), ("é", False)]
)
def test_control_characters_are_refused_in_any_argument(letter: str, refused: bool) -> None:
    for field in ("arguments", "array"):
        changed: dict[str, Any] = {field: ("run.toml", f"a{letter}")}
        said = refusal_of(dataclasses.replace(PLAIN, **changed))
        assert ("holds a control character" in said) is refused


def test_an_environment_is_not_for_a_container() -> None:
    assert "--venv is outside of the container" in refusal_of(dataclasses.replace(APPTAINER, venv="/home/ada/.venv"))
    assert refusal_of(dataclasses.replace(PLAIN, venv="/home/ada/.venv")) == ""


def test_names_of_folders_are_lists_for_containers_alone() -> None:
    for letter in " ,:":
        assert refusal_of(dataclasses.replace(PLAIN, folder=f"/home{letter}x")) == ""
        assert refusal_of(dataclasses.replace(APPTAINER, folder=f"/home{letter}x")) != ""
        assert refusal_of(dataclasses.replace(APPTAINER, mounts=(f"/data{letter}x",))) != ""
    assert refusal_of(dataclasses.replace(APPTAINER, folder="/home/with_é")) == ""


def test_a_container_sees_gpus_where_the_ranks_use_them() -> None:
    assert "--nv" in render(APPTAINER)
    on_cpus = render(dataclasses.replace(APPTAINER, gres=""))
    assert "--nv" not in on_cpus
    assert "export FTSYS_DEVICE=cpu" in on_cpus


def test_a_folder_is_mounted_once() -> None:
    job = dataclasses.replace(ENROOT, mounts=(ENROOT.folder, "/data"))
    (mounts,) = re.findall(r"--container-mounts=([^ ']+)", render(job))
    places = mounts.split(",")
    assert len(places) == len(set(places))
    assert "/data:/data" in places


def test_a_job_is_small_unless_more_is_asked_for() -> None:
    job = Job("a", ("run.toml",), "/f", "/f/runs/a", "/s")
    assert (job.nodes, job.gpus_per_node, job.cpus_per_node, job.warning_seconds, job.max_restarts) == (
        1,
        0,
        0,
        120,
        10,
    )
    assert not job.on_gpus
    assert dataclasses.replace(job, gpus_per_node=1).on_gpus
    assert dataclasses.replace(job, gres="gpu:1").on_gpus
    array = render(dataclasses.replace(job, array=("a.toml", "b.toml")))
    assert "#SBATCH --array=0-1\n" in array
    assert "dependency" not in array
