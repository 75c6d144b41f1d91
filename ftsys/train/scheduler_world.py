"""Forms one world of the tasks that `srun` or `mpirun` started, a process for each rank, by their variables.

torchrun and other launchers of ranks set RANK; then nothing is done here. Imports no torch.
"""

import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ftsys.errors import LaunchError

ALONE = "FTSYS_TASKS"
"""With the value "alone" each task trains by itself, as in a sweep."""
_PORTS = range(20_000, 30_000)
"""Below the ports that Linux gives to outgoing connections."""


@dataclass(frozen=True)
class Starter:
    """Names of the variables by which a program that starts tasks numbers them; "" where it has none."""

    program: str
    rank: str
    size: str
    local_rank: str
    local_size: str
    job: tuple[str, ...]
    """Variables that name the job, in which all its tasks agree and other jobs differ."""


_SRUN = Starter("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "", ("SLURM_JOB_ID", "SLURM_STEP_ID"))
_HYDRA = Starter("mpirun", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", ())
_OPEN_MPI = Starter(
    "mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_LOCAL_SIZE", ("PMIX_NAMESPACE", "OMPI_MCA_orte_hnp_uri"),
)  # fmt: skip
_MVAPICH = Starter(
    "mpirun", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK",
    "MV2_COMM_WORLD_LOCAL_SIZE", ("MPIRUN_ID",),
)  # fmt: skip
_JSRUN = Starter(
    "jsrun", "JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_LOCAL_RANK",
    "JSM_NAMESPACE_LOCAL_SIZE", ("LSB_JOBID", "JSM_NAMESPACE_ID"),
)  # fmt: skip
_STARTERS = (_OPEN_MPI, _MVAPICH, _JSRUN, _HYDRA, _SRUN)
"""mpirun comes before srun: inside SLURM it starts its helpers, not the tasks, by srun."""


def tasks_started(environ: Mapping[str, str]) -> tuple[Starter, int] | None:
    """Return the program that started this process as one of several tasks, and their number; None for any other."""
    if "RANK" in environ or environ.get(ALONE) == "alone":
        return None
    for starter in _STARTERS:
        size = environ.get(starter.size, "")
        if size.isdecimal() and int(size) > 1 and not (starter is _SRUN and _is_shell(environ)):
            return starter, int(size)
    return None


def _is_shell(environ: Mapping[str, str]) -> bool:
    """Return True in the terminal of `srun --pty bash`, where only one of the step's tasks is at work."""
    return "SLURM_PTY_PORT" in environ and sys.stdin is not None and sys.stdin.isatty()


def join_tasks(environ: MutableMapping[str, str]) -> str:
    """Set RANK and the like from the variables of `srun` or `mpirun`; returns a line about it, empty for one process.

    MASTER_ADDR and MASTER_PORT are kept where they are set. Raises LaunchError where the variables do not tell enough.
    """
    found = tasks_started(environ)
    if found is None:
        return ""
    starter, size = found
    rank = _number(starter, starter.rank, environ, below=size)
    local_size = _local_size(starter, size, environ)
    local_rank = _number(starter, starter.local_rank, environ, below=local_size)
    alone = local_size == size
    address = environ.get("MASTER_ADDR") or ("127.0.0.1" if alone else _first_address(starter, environ))
    port = environ.get("MASTER_PORT") or str(_port(starter, environ))
    if rank == 0 and "MASTER_PORT" not in environ:
        _check_free(int(port))
    environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(_device(local_rank, environ)))
    environ.update(LOCAL_WORLD_SIZE=str(local_size), MASTER_ADDR=address, MASTER_PORT=port)
    return f"{starter.program} started {size} tasks: they train together ({ALONE}=alone: each by itself)"


def _number(starter: Starter, name: str, environ: Mapping[str, str], below: int) -> int:
    text = environ.get(name, "")
    if not text.isdecimal() or int(text) >= below:
        raise LaunchError(
            f"{starter.program} started {environ[starter.size]} tasks, but {name}={text!r} is not a number below "
            f"{below}: start the run with `ftlaunch run`, or with torchrun, or set {ALONE}=alone."
        )
    return int(text)


def _local_size(starter: Starter, size: int, environ: Mapping[str, str]) -> int:
    if starter is _SRUN:
        return size if _on_one_machine(environ) else _tasks_on_this_node(environ)
    return _number(starter, starter.local_size, environ, below=size + 1)


def _on_one_machine(environ: Mapping[str, str]) -> bool:
    return environ.get("SLURM_STEP_NUM_NODES", environ.get("SLURM_NNODES", "1")) == "1"


def _tasks_on_this_node(environ: Mapping[str, str]) -> int:
    """Read this node's number in a list such as 4(x2),3."""
    text, node = environ.get("SLURM_STEP_TASKS_PER_NODE", ""), environ.get("SLURM_NODEID", "")
    counts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        counts += [int(match[1])] * int(match[2] or 1) if match else []
    if not node.isdecimal() or int(node) >= len(counts):
        raise LaunchError(
            f"srun started tasks on several nodes, but SLURM_STEP_TASKS_PER_NODE={text!r} and SLURM_NODEID={node!r} do "
            "not tell how many are on this one: start the run with `ftlaunch run` or `ftlaunch sbatch`."
        )
    return counts[int(node)]


def _device(local_rank: int, environ: Mapping[str, str]) -> int:
    """Return the local rank; 0 where the task sees one GPU alone, as with `srun --gpus-per-task=1`."""
    seen = environ.get("CUDA_VISIBLE_DEVICES", "").strip()
    return 0 if seen and "," not in seen else local_rank


def _first_address(starter: Starter, environ: Mapping[str, str]) -> str:
    nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST", "") if starter is _SRUN else ""
    if not nodes:
        raise LaunchError(
            f"{starter.program} started tasks on several machines and does not tell the first one: set MASTER_ADDR to "
            "its name for all tasks (mpirun -x MASTER_ADDR=NAME), or start with `ftlaunch run --hostfile`."
        )
    name = first_host(nodes)
    with suppress(OSError):
        socket.getaddrinfo(name, None)
        return name
    return _slurms_address(name) or name


def first_host(nodes: str) -> str:
    """Return the first name in SLURM's list of nodes, such as n[08-11,14],m3."""
    match = re.match(r"([^\[,]*)(?:\[(\d+)[^\]]*\]([^\[,]*))?", nodes)
    assert match is not None, "the pattern matches an empty text"
    return match[1] + (match[2] or "") + (match[3] or "")


def _slurms_address(name: str) -> str | None:
    """Return the address by which SLURM reaches a node that no name server knows."""
    if shutil.which("scontrol") is None:
        return None
    command: Sequence[str] = ("scontrol", "show", "node", name)
    told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout
    match = re.search(r"\bNodeAddr=(\S+)", told)
    return match[1] if match else None


def _port(starter: Starter, environ: Mapping[str, str]) -> int:
    """Derive a port from the job, equal on all ranks; where nothing names the job, from the command line."""
    named = [environ[name] for name in starter.job if name in environ]
    words = (
        [*named, environ.get("SLURM_RESTART_COUNT", "")] if named else [str(os.getuid()), str(Path.cwd()), *sys.argv]
    )
    digest = hashlib.sha256("\0".join(words).encode()).digest()
    return _PORTS[int.from_bytes(digest[:8], "big") % len(_PORTS)]


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise LaunchError(
                f"port {port}, derived from the job, is in use on {socket.gethostname()}: "
                "set MASTER_PORT to a free one for all tasks."
            ) from error
