"""Selects the backend that starts a run, with the reason. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ftsys.errors import LaunchError

Backend = Literal["local", "hostfile", "slurm"]


@dataclass(frozen=True)
class Choice:
    """A backend and the reason for it."""

    backend: Backend
    why: str


def choose_backend(
    requested: str, source: str, hostfile: str | None, environ: Mapping[str, str], has_srun: bool
) -> Choice:
    """Return the requested backend; for "auto": slurm in an allocation, hostfile if one is given, else local.

    `source`: the option or key that requested it, for messages. Raises LaunchError if it cannot start anything here.
    """
    job = environ.get("SLURM_JOB_ID", "")
    if job and not job.isdecimal():
        raise LaunchError(f"SLURM_JOB_ID={job!r} is not a job number: unset it, or start inside a SLURM allocation.")
    if requested == "auto":
        return _automatic(job, hostfile, has_srun)
    if requested == "slurm":
        _require_slurm(job, has_srun)
    if requested == "hostfile" and hostfile is None:
        raise LaunchError(
            f"{source} = 'hostfile' needs --hostfile FILE: a text file with a line `name slots=N` for each host."
        )
    if requested != "hostfile" and hostfile is not None:
        raise LaunchError(
            f"{source} = {requested!r} reads no hostfile, but --hostfile {hostfile!r} was given: drop one."
        )
    known: dict[str, Backend] = {"local": "local", "hostfile": "hostfile", "slurm": "slurm"}
    return Choice(known[requested], f"{source} = {requested!r}")


def port_seed(choice: Choice, folder: Path, environ: Mapping[str, str]) -> str:
    """Return the text from which a run's port is derived: its run folder, and the SLURM job that starts it, if any."""
    job = f"slurm job {environ['SLURM_JOB_ID']} " if choice.backend == "slurm" else ""
    return f"{job}{folder.absolute()}"


def _automatic(job: str, hostfile: str | None, has_srun: bool) -> Choice:
    if job and has_srun:
        unread = f", --hostfile {hostfile} is not used" if hostfile else ""
        return Choice("slurm", f"inside SLURM job {job}{unread}")
    without = f"SLURM job {job}, but no srun here" if job else "no SLURM allocation"
    if hostfile:
        return Choice("hostfile", f"--hostfile {hostfile}, {without}" if job else f"--hostfile {hostfile}")
    return Choice("local", f"{without}, no hostfile")


def _require_slurm(job: str, has_srun: bool) -> None:
    if not job:
        raise LaunchError(
            "the slurm backend works inside an allocation, and SLURM_JOB_ID is not set: start with sbatch or salloc."
        )
    if not has_srun:
        raise LaunchError(f"the slurm backend needs srun, which is not found here, inside SLURM job {job}.")
