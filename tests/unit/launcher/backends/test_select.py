"""Tests the choice of the backend and its reason."""

from pathlib import Path

import pytest

from ftsys.errors import LaunchError
from launcher.backends.select import Choice, choose_backend, port_seed

JOB = {"SLURM_JOB_ID": "17"}


@pytest.mark.parametrize(
    ("hostfile", "environ", "srun", "choice"),
    [
        (None, {}, False, Choice("local", "no SLURM allocation, no hostfile")),
        ("hosts", {}, True, Choice("hostfile", "--hostfile hosts")),
        (None, JOB, True, Choice("slurm", "inside SLURM job 17")),
        ("hosts", JOB, True, Choice("slurm", "inside SLURM job 17, --hostfile hosts is not used")),
        (None, JOB, False, Choice("local", "SLURM job 17, but no srun here, no hostfile")),
        ("hosts", JOB, False, Choice("hostfile", "--hostfile hosts, SLURM job 17, but no srun here")),
    ],
)
def test_auto(hostfile: str | None, environ: dict[str, str], srun: bool, choice: Choice) -> None:
    assert choose_backend("auto", "launch.backend", hostfile, environ, srun) == choice


@pytest.mark.parametrize(
    ("asked", "hostfile", "environ"), [("local", None, JOB), ("hostfile", "hosts", JOB), ("slurm", None, JOB)]
)
def test_what_is_asked_for_is_chosen(asked: str, hostfile: str | None, environ: dict[str, str]) -> None:
    choice = choose_backend(asked, "--backend", hostfile, environ, has_srun=True)
    assert (choice.backend, choice.why) == (asked, f"--backend = {asked!r}")


@pytest.mark.parametrize(
    ("asked", "hostfile", "environ", "srun", "said"),
    [
        ("slurm", None, {}, True, "SLURM_JOB_ID is not set: start with sbatch or salloc"),
        ("slurm", None, JOB, False, "needs srun, which is not found here"),
        ("hostfile", None, {}, False, "launch.backend = 'hostfile' needs --hostfile FILE: a text file"),
        ("local", "hosts", {}, False, "reads no hostfile, but --hostfile 'hosts' was given"),
        ("auto", None, {"SLURM_JOB_ID": "17; rm x"}, True, "SLURM_JOB_ID='17; rm x' is not a job number"),
    ],
)
def test_what_cannot_be_chosen(
    asked: str, hostfile: str | None, environ: dict[str, str], srun: bool, said: str
) -> None:
    with pytest.raises(LaunchError, match=said):
        choose_backend(asked, "launch.backend", hostfile, environ, srun)


def test_each_run_of_a_job_has_a_port_of_its_own() -> None:
    slurm, local = (choose_backend(asked, "--backend", None, JOB, has_srun=True) for asked in ("slurm", "local"))
    seeds = {port_seed(choice, Path(name), JOB) for choice in (slurm, local) for name in ("runs/a", "runs/b")}
    assert len(seeds) == 4
    assert port_seed(slurm, Path("runs/a"), {"SLURM_JOB_ID": "18"}) not in seeds
