"""The words of every command that starts something: torchrun, the deepspeed launcher, ssh, srun. Pure.

Lists of words are for `exec`, never for a shell. Only ssh's remote side has one, and it gets every word quoted.
"""

import base64
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ftsys.errors import LaunchError
from launcher.hostfile import check_host_name
from launcher.timeouts import (
    RENDEZVOUS_SECONDS,
    SSH_ALIVE_COUNT,
    SSH_ALIVE_SECONDS,
    SSH_CONNECT_SECONDS,
    TORCHRUN_POLL_SECONDS,
    TORCHRUN_SHUTDOWN_SECONDS,
)

Launcher = Literal["torchrun", "deepspeed"]

_OF_THE_RUN = tuple(
    "FTSYS_ HF_ HUGGINGFACE_ TRANSFORMERS_ TOKENIZERS_ TORCH PYTORCH_ TRITON_ NCCL_ GLOO_ UCX_ FI_ DS_ DEEPSPEED_ "
    "OMP_ GOMP_ KMP_ MKL_ OPENBLAS_ CUDA_LAUNCH_ CUDA_DEVICE_ CUBLAS_ PYTHON WANDB_ MLFLOW_ LC_".split()
)
"""Beginnings of names in the environment that mean the same on every machine of a run."""

_OF_THE_MACHINES = frozenset(
    "PATH LD_LIBRARY_PATH VIRTUAL_ENV CONDA_PREFIX LANG TZ TERM XDG_CACHE_HOME CUDA_HOME "
    "http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY".split()
)

_BEFORE_PYTHON = ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH")
"""What the far Python needs to find us; the rest follows over its standard input, unseen by other users' `ps`."""


@dataclass(frozen=True)
class Start:
    """What every node of a run is told, the same for all."""

    launcher: Launcher
    nodes: int
    ranks_per_node: int
    master: str
    """Host name or address of the first node, as the others reach it."""
    port: int
    run_id: str
    program: tuple[str, ...]
    """The words after `python -m ftsys`."""
    logs: str
    devices: tuple[str, ...] = ()
    """GPUs as CUDA_VISIBLE_DEVICES names them, for the deepspeed launcher; empty on CPUs."""

    def as_fields(self) -> dict[str, Any]:
        """Plain values, for an order."""
        return asdict(self)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> "Start":
        """Read what `as_fields` gave."""
        known = {**fields, "program": tuple(fields["program"]), "devices": tuple(fields["devices"])}
        return cls(**known)


def node_command(python: str, start: Start, node: int) -> list[str]:
    """torchrun's or the deepspeed launcher's command for one node, with `launcher.agent.rank` around each rank."""
    return deepspeed_command(python, start) if start.launcher == "deepspeed" else torchrun_command(python, start, node)


def torchrun_command(python: str, start: Start, node: int) -> list[str]:
    """torchrun for one node, as a module: `torchrun` itself may be another environment's."""
    return [
        *(python, "-m", "torch.distributed.run"),
        f"--nnodes={start.nodes}",
        f"--nproc-per-node={start.ranks_per_node}",
        f"--node-rank={node}",
        f"--master-addr={start.master}",
        f"--master-port={start.port}",
        f"--rdzv-id={start.run_id}",
        f"--rdzv-conf=timeout={RENDEZVOUS_SECONDS}",
        "--max-restarts=0",
        f"--monitor-interval={TORCHRUN_POLL_SECONDS}",
        # Without USR1 torchrun dies of it and leaves its ranks behind.
        "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",
        f"--shutdown-timeout={TORCHRUN_SHUTDOWN_SECONDS}",
        *("--module", "launcher.agent.rank", *start.program),
    ]


def deepspeed_command(python: str, start: Start) -> list[str]:
    """The deepspeed launcher's part for one machine, which `deepspeed --num_gpus N` itself starts.

    Calling it directly saves one more import of torch, and a signal reaches the ranks: the outer part dies of it.
    """
    slots = {"localhost": list(start.devices or range(start.ranks_per_node))}
    world = base64.urlsafe_b64encode(json.dumps(slots).encode()).decode()
    return [
        *(python, "-u", "-m", "deepspeed.launcher.launch"),
        f"--world_info={world}",
        f"--master_addr={start.master}",
        f"--master_port={start.port}",
        *("--log_level=error", "--no_local_rank"),
        *("--module", "launcher.agent.rank", *start.program),
    ]


def agent_command(python: str) -> list[str]:
    """`launcher.agent`, which runs on each node, gets its orders on standard input and ends when that ends."""
    return [python, "-m", "launcher.agent"]


def ssh_command(host: str, python: str, folder: str, environ: Mapping[str, str]) -> list[str]:
    """ssh to a host, starting the node's agent there in the same folder. Raises LaunchError for no host name."""
    return [*ssh_words(host), remote_line(agent_command(python), folder, environ)]


def ssh_words(host: str) -> list[str]:
    """ssh to a host, but for the line that its shell is to read. Raises LaunchError for no host name.

    BatchMode: no password is asked for, so a host that refuses fails at once. A cut connection is noticed in 15 s.
    """
    options = [
        "BatchMode=yes",
        f"ConnectTimeout={SSH_CONNECT_SECONDS}",
        f"ServerAliveInterval={SSH_ALIVE_SECONDS}",
        f"ServerAliveCountMax={SSH_ALIVE_COUNT}",
        "ClearAllForwardings=yes",
    ]
    words = ["ssh", "-T", *(part for option in options for part in ("-o", option))]
    return [*words, "--", check_host_name(host)]


def remote_line(command: Sequence[str], folder: str, environ: Mapping[str, str]) -> str:
    """The one line that the far shell reads: every word of it quoted."""
    first = [f"{name}={environ[name]}" for name in _BEFORE_PYTHON if name in environ]
    return f"cd {shlex.quote(folder)} && exec {shlex.join(['env', *first, *command] if first else list(command))}"


def passed_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What of the environment a far node gets: what belongs to the run, nothing of this machine or of a SLURM job."""
    return {name: value for name, value in environ.items() if name in _OF_THE_MACHINES or name.startswith(_OF_THE_RUN)}


def srun_command(python: str, nodes: int, cpus: int | None) -> list[str]:
    """One step of the allocation with one agent a node. `cpus`: what each may use, since a step has one by default."""
    # Without killing on a bad exit the survivors hold the nodes.
    words = [*srun_words(nodes), "--kill-on-bad-exit=1"]
    return [*words, *([f"--cpus-per-task={cpus}"] if cpus else []), *agent_command(python)]


def srun_words(nodes: int) -> list[str]:
    """A step with one task a node, all of which get the standard input."""
    return ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--input=all", "--export=ALL"]


def smallest_cpu_count(text: str) -> int | None:
    """The smallest count in SLURM_JOB_CPUS_PER_NODE, such as `64(x2),32`; None for a text that has none.

    Raises LaunchError for a text that SLURM does not write.
    """
    if not text:
        return None
    parts = [re.fullmatch(r"(\d+)(?:\(x\d+\))?", part) for part in text.split(",")]
    if not all(parts):
        raise LaunchError(f"SLURM_JOB_CPUS_PER_NODE={text!r} is no list of counts: start inside a SLURM allocation.")
    return min(int(part[1]) for part in parts if part)
