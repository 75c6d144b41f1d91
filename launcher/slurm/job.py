"""Finds, describes, submits and cancels the SLURM job of a run folder."""

import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ftsys.errors import LaunchError, StorageError
from ftsys.files.atomic import atomic_write_text
from ftsys.files.untrusted import file_text
from ftsys.run_folder.layout import LOGS
from launcher.timeouts import SLURM_COMMAND_SECONDS

JOB_FILE = f"{LOGS}/slurm-job"
"""File in the run folder with the number of the newest job that was submitted for it. job.sh writes it too."""

LIVE = frozenset("PENDING CONFIGURING RUNNING SUSPENDED COMPLETING REQUEUED RESIZING SIGNALING STAGE_OUT".split())


def run_slurm(*command: str) -> str:
    """Run a SLURM command and return its output. Raises LaunchError if it fails or is not installed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SLURM_COMMAND_SECONDS, check=True)
    except FileNotFoundError:
        raise LaunchError(f"{command[0]!r} is not found: run this on a login node of a SLURM cluster.") from None
    except subprocess.TimeoutExpired:
        raise LaunchError(
            f"`{' '.join(command)}` did not answer for {SLURM_COMMAND_SECONDS} s: is slurmctld up?"
        ) from None
    except subprocess.CalledProcessError as error:
        raise LaunchError(f"`{' '.join(command)}` failed: {error.stderr.strip() or error.returncode}") from error
    return done.stdout


def job_number(folder: Path) -> str | None:
    """Return the newest job of the run folder, None if it had none. Raises LaunchError for a damaged file."""
    path = folder / JOB_FILE
    if not path.exists():
        return None
    try:
        number = file_text(path).strip()
    except (OSError, ValueError) as error:
        raise LaunchError(f"{str(path)!r} cannot be read ({error}): remove the file.") from error
    if not re.fullmatch(r"\d+(_\d+)?", number, re.ASCII):  # with the task of an array
        raise LaunchError(f"{str(path)!r} holds {number[:80]!r}, which is not a job number: remove the file.")
    return number


def require_job_number(folder: Path) -> str:
    """Return the newest job of the run folder. Raises LaunchError if it had none."""
    number = job_number(folder)
    if number is None:
        raise LaunchError(f"{str(folder)!r} is not the run folder of a SLURM job: {JOB_FILE} is not in it.")
    return number


def refuse_overrides(overrides: Sequence[str]) -> None:
    """Raise LaunchError for overrides of a command that reads no run file."""
    if overrides:
        raise LaunchError(
            f"{' '.join(overrides)}: this command reads no run file, so nothing can be overridden: leave it out."
        )


def state(number: str) -> str:
    """Return the job's state in SLURM's terms; `GONE` once SLURM has forgotten it."""
    return describe_job(number)[0]


def describe_job(number: str) -> tuple[str, str]:
    """Return (state, a short description) of a job. Raises LaunchError if SLURM does not answer."""
    try:
        line = run_slurm("squeue", "--noheader", "--states=all", f"--jobs={number}", "--format=%T|%N|%M|%r").strip()
    except LaunchError as error:
        if "Invalid job id" not in str(error):
            raise
        line = ""
    if not line:
        return "GONE", "SLURM has forgotten it"
    found, nodes, used, reason = line.split("\n")[0].split("|", 3)
    waits = f", {reason}" if found == "PENDING" else ""
    return found, f"{found}{f' on {nodes}' if nodes else ''}, {used} used{waits}"


def submit(text: str, folder: Path) -> str:
    """Submit a script and record its job in the run folder; returns the job's number.

    Raises LaunchError if another job of the folder is live, or if sbatch refuses.
    """
    former = job_number(folder)
    if former is not None and (found := state(former)) in LIVE:
        raise LaunchError(
            f"run folder {str(folder)!r} belongs to job {former} ({found}): "
            f"wait for it, `ftlaunch cancel {shlex.quote(str(folder))}`, or name another output_dir."
        )
    logs = folder / LOGS
    try:
        atomic_write_text(logs / "job.sbatch", text)
    except StorageError as error:
        raise LaunchError(f"{error} Or name another output_dir.") from error
    number = run_slurm("sbatch", "--parsable", str(logs / "job.sbatch")).strip().partition(";")[0]
    try:
        atomic_write_text(folder / JOB_FILE, f"{number}\n")
    except StorageError as error:
        raise LaunchError(
            f"job {number} is submitted, but `ftlaunch status` does not know it: {error} `scancel {number}` ends it."
        ) from error
    return number


def cancel(number: str) -> None:
    """Have SLURM end the job: its ranks get a signal, save and leave. Raises LaunchError."""
    run_slurm("scancel", number)
