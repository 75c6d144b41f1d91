"""Builds the command line of everything that the launcher starts: torchrun, the deepspeed launcher, ssh, srun. Pure.

Command lines are lists of arguments for `exec`, never for a shell. Only the remote side of ssh is a shell; it gets
every argument quoted.
"""

import base64
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ftsys.console.child_python import python_command
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

_RUN_PREFIXES = tuple(
    "FTSYS_ HF_ HUGGINGFACE_ TRANSFORMERS_ TOKENIZERS_ TORCH PYTORCH_ TRITON_ NCCL_ GLOO_ UCX_ FI_ DS_ DEEPSPEED_ "
    "OMP_ GOMP_ KMP_ MKL_ OPENBLAS_ CUDA_LAUNCH_ CUDA_DEVICE_ CUBLAS_ PYTHON WANDB_ MLFLOW_ LC_".split()
)
"""Prefixes of environment variables that mean the same on every machine of a run."""

_MACHINE_NAMES = frozenset(
    "PATH LD_LIBRARY_PATH VIRTUAL_ENV CONDA_PREFIX LANG TZ TERM XDG_CACHE_HOME CUDA_HOME "
    "http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY".split()
)

_OF_THE_JOB = tuple(
    f"SLURM_{name}"
    for name in "CPUS_PER_GPU GPUS_PER_TASK GPU_BIND NTASKS_PER_GPU NTASKS_PER_TRES TRES_PER_TASK".split()
)
"""Variables with what a job asked for its own tasks or GPUs, and that srun reads as what is asked of a new step."""

_OF_THE_STEP = tuple(f"SLURM_{name}" for name in ("CPU_BIND", "MEM_BIND", "CPUS_PER_TASK", "DISTRIBUTION"))
"""Variables that describe a step to its tasks, and that srun reads as what is asked of a new step."""

_BEFORE_PYTHON = ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH")
"""Variables that the remote Python needs to find this package. The others follow over its standard input, where `ps`
does not show them to other users."""


@dataclass(frozen=True)
class LaunchSpec:
    """Describes the start of a run's ranks; the same for every node."""

    launcher: Launcher
    nodes: int
    ranks_per_node: int
    master: str
    """Host name or address of the first node, as the others reach it."""
    port: int
    run_id: str
    program: tuple[str, ...]
    """The arguments after `python -m ftsys`."""
    logs: str
    devices: tuple[str, ...] = ()
    """GPUs as CUDA_VISIBLE_DEVICES names them, for the deepspeed launcher; empty on CPUs."""

    def as_fields(self) -> dict[str, Any]:
        """Return plain values, for an order."""
        return asdict(self)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> "LaunchSpec":
        """Read the values that `as_fields` returned, after their way through JSON."""
        return cls(**{**fields, "program": tuple(fields["program"]), "devices": tuple(fields["devices"])})


def launcher_command(python: str, launch: LaunchSpec, node: int) -> list[str]:
    """Return torchrun's or the deepspeed launcher's command for one node; `launcher.agent.rank` runs each rank."""
    if launch.launcher == "deepspeed":
        return deepspeed_command(python, launch)
    return torchrun_command(python, launch, node)


def torchrun_command(python: str, launch: LaunchSpec, node: int) -> list[str]:
    """Return torchrun's command for one node; as a module, since `torchrun` may belong to another environment."""
    return [
        *python_command("-m", "torch.distributed.run", python=python),
        f"--nnodes={launch.nodes}",
        f"--nproc-per-node={launch.ranks_per_node}",
        f"--node-rank={node}",
        f"--master-addr={launch.master}",
        f"--master-port={launch.port}",
        f"--rdzv-id={launch.run_id}",
        f"--rdzv-conf=timeout={RENDEZVOUS_SECONDS}",
        "--max-restarts=0",
        f"--monitor-interval={TORCHRUN_POLL_SECONDS}",
        # By default USR1 kills torchrun, and its ranks stay behind.
        "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",
        f"--shutdown-timeout={TORCHRUN_SHUTDOWN_SECONDS}",
        *("--module", "launcher.agent.rank", *launch.program),
    ]


def deepspeed_command(python: str, launch: LaunchSpec) -> list[str]:
    """Return the command of deepspeed's launcher for one machine, which `deepspeed --num_gpus N` itself starts.

    Starting it directly saves one import of torch. It also lets signals reach the ranks: they kill the outer process.
    """
    slots = {"localhost": list(launch.devices or range(launch.ranks_per_node))}
    world = base64.urlsafe_b64encode(json.dumps(slots).encode()).decode()
    return [
        *python_command("-u", "-m", "deepspeed.launcher.launch", python=python),
        f"--world_info={world}",
        f"--master_addr={launch.master}",
        f"--master_port={launch.port}",
        *("--log_level=error", "--no_local_rank"),
        *("--module", "launcher.agent.rank", *launch.program),
    ]


def agent_command(python: str) -> list[str]:
    """Return the command of an agent, which gets its orders on standard input and ends when that is closed."""
    return python_command("-m", "launcher.agent", python=python)


def ssh_command(host: str, python: str, folder: str, environ: Mapping[str, str]) -> list[str]:
    """Return the ssh command that starts an agent on a host, in a folder. Raises LaunchError for a bad host name."""
    return [*ssh_prefix(host), remote_shell_line(agent_command(python), folder, environ)]


def ssh_prefix(host: str) -> list[str]:
    """Return an ssh command without the line for the remote shell. Raises LaunchError for a bad host name.

    With BatchMode ssh never asks for a password, so a host that refuses fails at once.
    """
    options = [
        "BatchMode=yes",
        f"ConnectTimeout={SSH_CONNECT_SECONDS}",
        f"ServerAliveInterval={SSH_ALIVE_SECONDS}",
        f"ServerAliveCountMax={SSH_ALIVE_COUNT}",
        "ClearAllForwardings=yes",
    ]
    command = ["ssh", "-T", *(part for option in options for part in ("-o", option))]
    return [*command, "--", check_host_name(host)]


def remote_shell_line(command: Sequence[str], folder: str, environ: Mapping[str, str]) -> str:
    """Return the one line for the remote shell, with every argument quoted."""
    variables = [f"{name}={environ[name]}" for name in _BEFORE_PYTHON if name in environ]
    prefix = ["env", *variables] if variables else []
    return f"cd {shlex.quote(folder)} && exec {shlex.join([*prefix, *command])}"


def forwarded_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Select the variables for a remote node: those of the run, none of this machine's own or of a SLURM job's."""
    return {name: value for name, value in environ.items() if name in _MACHINE_NAMES or name.startswith(_RUN_PREFIXES)}


def srun_command(python: str, hosts: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Return the srun command that starts one agent on each host. Raises LaunchError as `srun_prefix` does."""
    # Without --kill-on-bad-exit the surviving agents keep their nodes.
    return [*srun_prefix(hosts, environ), "--kill-on-bad-exit=1", *agent_command(python)]


def srun_prefix(hosts: Sequence[str], environ: Mapping[str, str], tasks_per_node: int = 1) -> list[str]:
    """Return an srun command for a step with tasks on each host, which share the job's CPUs and GPUs there.

    Every task gets the standard input. Called in a step, such as `srun --pty bash`, which holds the CPUs, memory and
    GPUs that the new step needs, both steps share them. Raises LaunchError for variables of SLURM that name no counts.
    """
    within = is_within_step(environ)
    read_by_srun = [name for name in (*_OF_THE_JOB, *(_OF_THE_STEP if within else ())) if name in environ]
    return [
        *(["env", *(word for name in read_by_srun for word in ("-u", name))] if read_by_srun else []),
        *("srun", *(["--overlap"] if within else [])),
        f"--nodes={len(hosts)}",
        # Ranks of several nodes meet on the first of these. One node may be any, so that runs share an allocation.
        *([f"--nodelist={','.join(hosts)}"] if len(hosts) > 1 else []),
        *(f"--ntasks={len(hosts) * tasks_per_node}", f"--ntasks-per-node={tasks_per_node}"),
        *("--input=all", "--export=ALL"),
        *_cpus_of_a_task(environ, tasks_per_node),
        *_gpus_of_a_node(environ),
    ]


def _cpus_of_a_task(environ: Mapping[str, str], tasks_per_node: int) -> list[str]:
    """Return the option for a task's share of the CPUs; without it a step has one."""
    cpus = smallest_cpu_count(environ.get("SLURM_JOB_CPUS_PER_NODE", ""))
    if cpus is None:
        return []
    return [f"--cpus-per-task={cpus // tasks_per_node}"] if cpus >= tasks_per_node else ["--overcommit"]


def _gpus_of_a_node(environ: Mapping[str, str]) -> list[str]:
    """Return the option for all GPUs of a node, where the job asked for GPUs by task: our step has fewer tasks."""
    by_task = any(environ.get(f"SLURM_{name}") for name in ("GPUS_PER_TASK", "NTASKS_PER_GPU", "NTASKS_PER_TRES"))
    if not by_task and "gres" not in environ.get("SLURM_TRES_PER_TASK", ""):
        return []  # SLURM gives a step all GPUs of the job
    if not (count := environ.get("SLURM_GPUS_ON_NODE", "")).isdecimal():
        raise LaunchError(
            f"the job asks for GPUs by task, and SLURM_GPUS_ON_NODE={count!r} does not tell how many a node has: "
            "submit it with --gpus-per-node=N instead."
        )
    return [f"--gpus-per-node={count}"]


def is_within_step(environ: Mapping[str, str]) -> bool:
    """Return True in a process that srun started; the script of a job is in no step."""
    return environ.get("SLURM_STEP_ID", "").isdecimal()


def smallest_cpu_count(text: str) -> int | None:
    """Return the smallest count in SLURM_JOB_CPUS_PER_NODE, such as `64(x2),32`; None for an empty text.

    Raises LaunchError for a text that is not a list of counts.
    """
    if not text:
        return None
    parts = [re.fullmatch(r"(\d+)(?:\(x\d+\))?", part) for part in text.split(",")]
    if not all(parts):
        raise LaunchError(f"SLURM_JOB_CPUS_PER_NODE={text!r} is not a list of counts: start inside a SLURM allocation.")
    return min(int(part[1]) for part in parts if part)


def missing_program(command: Sequence[str]) -> LaunchError:
    """Return the error for a command whose program is not on this machine."""
    return LaunchError(f"{command[0]!r} is not found on this machine: install it, or put it on PATH.")
