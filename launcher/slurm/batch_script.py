"""Renders the batch script of one run, or of an array of runs. Pure.

sbatch reads the `#SBATCH` lines, and does not quote like a shell. So a value may contain only characters that mean the
same to both. Lines for bash are quoted.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ftsys.errors import LaunchError
from ftsys.run_folder.layout import LOGS

Container = Literal["none", "apptainer", "enroot"]

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.,+-]*"
_PATH = r"[^\x00-\x1f\x7f\"'\\`$]+"

ALLOWED = {
    "--job-name": (r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", "letters, digits and _ . + -"),
    "--partition": (_NAME, "names, with commas between them"),
    "--account": (_NAME, "an account's name"),
    "--time": (r"\d+|\d+:\d\d(:\d\d)?|\d+-\d\d?(:\d\d){0,2}", "minutes, hours:minutes:seconds or days-hours"),
    "--gres": (r"[A-Za-z0-9_][A-Za-z0-9_.:,/=-]*", "such as gpu:8 or gpu:a100:4"),
    "--constraint": (r"[A-Za-z0-9_(\[][A-Za-z0-9_.,:&|*()\[\]=-]*", "features, with & or | between them"),
    "--module": (r"[A-Za-z0-9_][A-Za-z0-9_.+/@-]*", "such as cuda/12.8"),
    "--image": (r"[A-Za-z0-9_./][A-Za-z0-9_.,:/@+#=-]*", "a path or an address without blanks"),
    "--mount": (r"/[A-Za-z0-9_./@+=-]*", "an absolute path without blanks, commas and colons"),
    "--venv": (_PATH, "a path without quotes"),
    "output_dir": (_PATH, "a path without quotes"),
    "the folder of the run": (_PATH, "a path without quotes"),
}
"""Option -> the pattern that its whole value must match, and a description of it for messages."""


@dataclass(frozen=True)
class Job:
    """The resources that a batch script requests from SLURM, and the run that it starts. Empty texts are left out."""

    name: str
    arguments: tuple[str, ...]
    """The run file and its overrides."""
    folder: str
    """The folder in which `ftlaunch` was started; relative paths start there."""
    run_folder: str
    scripts: str
    """The folder that holds job.sh and node.sh."""
    nodes: int = 1
    gpus_per_node: int = 0
    """GPUs of each node, unless `gres` gives them; 0: CPU ranks."""
    cpus_per_node: int = 0
    """CPUs of each node; 0: as many as the site gives by itself."""
    time: str = "01:00:00"
    partition: str = ""
    account: str = ""
    gres: str = ""
    constraint: str = ""
    warning_seconds: int = 120
    """Seconds before the time limit at which the run is told to save a checkpoint."""
    max_restarts: int = 10
    modules: tuple[str, ...] = ()
    venv: str = ""
    container: Container = "none"
    image: str = ""
    mounts: tuple[str, ...] = ()
    """Folders to mount in the container, besides those of the run."""
    array: tuple[str, ...] = ()
    """Run files of a job array, one for each of its tasks; they take the place of `arguments`."""
    array_limit: int = 0
    """The most tasks of the array that run at a time; 0: as many as SLURM gives."""
    after: str = ""
    """Number of a job that has to succeed before this one starts."""

    @property
    def on_gpus(self) -> bool:
        """True if the ranks compute on GPUs."""
        return bool(self.gpus_per_node or self.gres)


def render(job: Job) -> str:
    """Return the whole script. Raises LaunchError with every value that cannot be passed on safely."""
    _check(job)
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            *(f"#SBATCH --{name}={value}".rstrip("=") for name, value in _directives(job)),
            # Before `set -u`: the `module` function of many sites reads variables that are not set.
            *(f"module load {shlex.quote(name)} || exit 2" for name in job.modules),
            "set -euo pipefail",
            f"cd {shlex.quote(job.folder)}",
            *(f"export {name}={shlex.quote(value)}" for name, value in _environment(job)),
            *([f"runs=({shlex.join(job.array)})"] if job.array else []),
            f"exec bash {shlex.quote(job.scripts + '/job.sh')} {_arguments(job)}",
            "",
        ]
    )


def _arguments(job: Job) -> str:
    return '"${runs[SLURM_ARRAY_TASK_ID]}"' if job.array else shlex.join(job.arguments)


def _directives(job: Job) -> Iterator[tuple[str, str]]:
    yield "job-name", job.name
    for name in ("partition", "account"):
        if value := getattr(job, name):
            yield name, value
    yield "time", job.time
    yield "nodes", str(job.nodes)
    yield "ntasks-per-node", "1"
    if job.cpus_per_node:
        yield "cpus-per-task", str(job.cpus_per_node)
    if job.gres:
        yield "gres", job.gres
    elif job.gpus_per_node:
        yield "gpus-per-node", str(job.gpus_per_node)
    if job.constraint:
        yield "constraint", f'"{job.constraint}"'
    if job.array:
        yield "array", f"0-{len(job.array) - 1}" + (f"%{job.array_limit}" if job.array_limit else "")
    if job.after:
        yield "dependency", f"afterany:{job.after}"  # after some failed: the others have what this array needs
    yield "signal", f"B:USR1@{job.warning_seconds}"
    yield "requeue", ""
    yield "open-mode", "append"  # otherwise a requeued job empties its log
    log = "slurm-%A_%a.log" if job.array else "slurm-%j.log"
    yield "output", f'"{job.run_folder.replace("%", "%%")}/{LOGS}/{log}"'


def _environment(job: Job) -> Iterator[tuple[str, str]]:
    yield "FTSYS_DEVICE", "cuda" if job.on_gpus else "cpu"
    yield "FTSYS_MAX_RESTARTS", str(job.max_restarts)
    if job.venv:
        yield "FTSYS_VENV", job.venv
    if job.container == "none":
        return
    yield "FTSYS_PYTHON", "python3"
    mounted = dict.fromkeys([job.folder, job.scripts, job.run_folder, *job.mounts])
    if job.container == "apptainer":
        gpus = ["--nv"] if job.on_gpus else []
        binds = [f"--bind={path}" for path in mounted]
        yield "FTSYS_INSIDE", " ".join(["apptainer", "exec", *gpus, *binds, f"--pwd={job.folder}", job.image])
    else:
        mounts = ",".join(f"{path}:{path}" for path in mounted)
        options = [
            f"--container-image={job.image}",
            f"--container-mounts={mounts}",
            f"--container-workdir={job.folder}",
        ]
        yield "FTSYS_SRUN", " ".join(options)


def _check(job: Job) -> None:
    """Raise LaunchError with everything that is wrong."""
    named = [
        *((f"--{name}", getattr(job, name)) for name in ("partition", "account", "time", "gres", "constraint")),
        ("--image", job.image),
        ("--venv", job.venv),
        ("output_dir", job.run_folder),
        ("the folder of the run", job.folder),
        ("the folder of the run", job.scripts),
        *(("--module", each) for each in job.modules),
        *(("--mount", each) for each in job.mounts),
    ]
    if job.container != "none":  # parts of a list that blanks, commas and colons separate
        named += [("--mount", each) for each in (job.folder, job.scripts, job.run_folder) if re.search(r"[\s,:]", each)]
    named = [("--job-name", job.name), *(each for each in named if each[1])]
    wrong = [_mistake(option, value) for option, value in named if not _passes(option, value)]
    wrong += _mistakes_of_counts(job)
    if any(_is_control(letter) for argument in (*job.arguments, *job.array) for letter in argument):
        wrong.append(f"{' '.join(job.arguments)!r} holds a control character: leave it out.")
    if wrong:
        raise LaunchError("\n".join(wrong))


def _passes(option: str, value: str) -> bool:
    return re.fullmatch(ALLOWED[option][0], value) is not None


def _mistake(option: str, value: str) -> str:
    return f"{option} {value!r} cannot be passed on to SLURM: write {ALLOWED[option][1]}."


def _is_control(letter: str) -> bool:
    return ord(letter) < 32 or ord(letter) == 127


def _mistakes_of_counts(job: Job) -> Iterator[str]:
    least: Sequence[tuple[str, int, int]] = (
        ("--nodes", job.nodes, 1),
        ("--gpus-per-node", job.gpus_per_node, 0),
        ("--cpus-per-node", job.cpus_per_node, 0),
        ("--warning-seconds", job.warning_seconds, 1),
        ("--max-restarts", job.max_restarts, 0),
        ("--at-a-time", job.array_limit, 0),
    )
    yield from (f"{name} {value} is too small: give {low} or more." for name, value, low in least if value < low)
    if 0 < job.cpus_per_node < job.gpus_per_node:
        yield (
            f"--cpus-per-node {job.cpus_per_node} is less than one for each of {job.gpus_per_node} ranks: give "
            f"{job.gpus_per_node} or more, or leave it out."
        )
    if job.warning_seconds > 65_535:
        yield f"--warning-seconds {job.warning_seconds} is more than SLURM takes: give 65535 or less."
    if (job.container == "none") != (not job.image):
        yield "--container and --image go together: name both, or leave both out."
    if job.venv and job.container != "none":
        yield "--venv is outside of the container, whose own python3 is used: leave it out."
