"""The SLURM job of a run folder: which it is, how it stands, and what is sent to it."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from ftsys.errors import LaunchError
from launcher.timeouts import SLURM_COMMAND_SECONDS

JOB_FILE = "logs/slurm-job"
"""In the run folder: the number of the newest job that was submitted for it. job.sh writes it too."""

LIVE = frozenset("PENDING CONFIGURING RUNNING SUSPENDED COMPLETING REQUEUED RESIZING SIGNALING STAGE_OUT".split())


def call(*words: str, text: str | None = None) -> str:
    """What a SLURM command prints. Raises LaunchError with its words where it fails or is not there."""
    try:
        done = subprocess.run(
            words, input=text, capture_output=True, text=True, timeout=SLURM_COMMAND_SECONDS, check=True
        )
    except FileNotFoundError:
        raise LaunchError(f"{words[0]!r} is not found: run this on a login node of a SLURM cluster.") from None
    except subprocess.TimeoutExpired:
        raise LaunchError(
            f"`{' '.join(words)}` did not answer for {SLURM_COMMAND_SECONDS} s: is slurmctld up?"
        ) from None
    except subprocess.CalledProcessError as error:
        raise LaunchError(f"`{' '.join(words)}` failed: {error.stderr.strip() or error.returncode}") from error
    return done.stdout


def job_number(folder: Path) -> str | None:
    """The newest job of the run folder, None if it had none. Raises LaunchError for a damaged file."""
    path = folder / JOB_FILE
    if not path.exists():
        return None
    number = path.read_text(encoding="utf-8").strip()
    if not number.isdecimal():
        raise LaunchError(f"{str(path)!r} holds {number!r}, which is no job: remove the file.")
    return number


def demanded_number(folder: Path) -> str:
    """As `job_number`. Raises LaunchError where there is none."""
    number = job_number(folder)
    if number is None:
        raise LaunchError(f"{str(folder)!r} is no run folder of a SLURM job: {JOB_FILE} is not in it.")
    return number


def refuse_overrides(overrides: Sequence[str]) -> None:
    """Raise LaunchError for overrides of a command that reads no run file."""
    if overrides:
        raise LaunchError(f"{' '.join(overrides)} is for no run file here: leave it out.")


def state(number: str) -> str:
    """The job's state in SLURM's word, `GONE` once SLURM has forgotten it."""
    return described(number)[0]


def described(number: str) -> tuple[str, str]:
    """(state, the job in a few words). Raises LaunchError where SLURM does not answer."""
    try:
        line = call("squeue", "--noheader", "--states=all", f"--jobs={number}", "--format=%T|%N|%M|%r").strip()
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
    """Hand a script over and note its job in the run folder; returns the job's number.

    Raises LaunchError where another job of the folder is live, or where sbatch refuses.
    """
    former = job_number(folder)
    if former is not None and (found := state(former)) in LIVE:
        raise LaunchError(
            f"run folder {str(folder)!r} belongs to job {former} ({found}): "
            f"wait for it, `ftlaunch cancel {folder}`, or name another output_dir."
        )
    logs = folder / "logs"
    try:
        logs.mkdir(parents=True, exist_ok=True)
        (logs / "job.sbatch").write_text(text, encoding="utf-8")
    except OSError as error:
        raise LaunchError(f"{str(logs)!r} cannot be written ({error.strerror}): name another output_dir.") from error
    number = call("sbatch", "--parsable", str(logs / "job.sbatch")).strip().partition(";")[0]
    (folder / JOB_FILE).write_text(f"{number}\n", encoding="utf-8")
    return number


def cancel(number: str) -> None:
    """Have SLURM end the job: its ranks are told, save and leave. Raises LaunchError."""
    call("scancel", number)
