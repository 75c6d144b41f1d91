"""Describes the environment of a run: versions, commit, host and devices (env.json)."""

import contextlib
import os
import platform
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from ftsys import __version__
from ftsys.cpus.instructions import vector_instructions

_PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "deepspeed",
    "datasets",
    "tokenizers",
    "safetensors",
    "numpy",
    "scikit-learn",
    "scipy",
    "pyarrow",
    "triton",
)

_ENVIRONMENT = (
    *("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"),
    *("CUDA_VISIBLE_DEVICES", "WORLD_SIZE", "SLURM_JOB_ID", "SLURM_JOB_NODELIST"),
)


def environment() -> dict[str, Any]:
    """Collect the content of env.json: versions, command, host, CPU, memory, GPUs and environment variables.

    Asks torch for GPUs only if torch is loaded already. `memory_bytes` is the machine's memory in bytes.
    """
    return {
        "versions": versions(),
        "commit": commit(),
        "command": sys.argv,
        "host": socket.gethostname(),
        "system": platform.platform(),
        "cpu": _cpu_name(),
        "cpu_instructions": list(vector_instructions()),
        "cpu_cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": _gpu_names(),
        "environment": {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
    }


def versions() -> dict[str, str]:
    """Return the versions of Python, ftsys and those installed packages that affect results or speed."""
    found = {"python": platform.python_version(), "ftsys": __version__}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):  # not installed
            found[name] = metadata.version(name)
    return found


def commit() -> str | None:
    """Return the commit of this checkout, with "+" appended if files differ from it; None without a checkout or git."""
    here = Path(__file__).resolve().parent
    try:
        head = _git(here, "rev-parse", "HEAD")
        owned = _git(here, "ls-files", "--error-unmatch", Path(__file__).name)
        return head + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no") else "") if owned else None
    except (OSError, subprocess.SubprocessError):
        return None  # a wheel, or a machine without git


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpu_names() -> list[str]:
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
