"""Times interleaved repeats, summarizes them, and writes a JSON record with command, commit, device and versions."""

import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from ftsys.cpus.instructions import vector_instructions
from ftsys.files.atomic import atomic_write_text

PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "deepspeed", "numpy", "pyarrow")
DEFAULT_FOLDER = Path("benchmarks/results")


@dataclass(frozen=True)
class Measurement:
    """A summary of repeats, in `unit`. `spread` is the interquartile range."""

    unit: str
    median: float
    spread: float
    best: float
    repeats: int

    @classmethod
    def of(cls, values: Sequence[float], unit: str, higher_is_better: bool = False) -> "Measurement":
        """Summarize one or more values."""
        quartiles = quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
        best = max(values) if higher_is_better else min(values)
        return cls(unit, median(values), quartiles[2] - quartiles[0], best, len(values))


def seconds(work: Callable[[], object]) -> float:
    """Measure the wall-clock seconds of a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleaved(works: Mapping[str, Callable[[], object]], repeats: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Measure the seconds of each call in interleaved repeats, so that a drift of the machine affects all alike.

    The first `warm_up` rounds are run and dropped.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(warm_up + repeats):
        for name, work in works.items():
            taken = seconds(work)
            if turn >= warm_up:
                times[name].append(taken)
    return times


def device_name() -> str:
    """Return the GPU's name where torch is loaded and sees one, else the CPU's with the number of usable CPUs."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"{_cpu_model()} x{len(os.sched_getaffinity(0))}"


def write_record(
    folder: Path,
    name: str,
    measurements: Mapping[str, Measurement],
    ratios: Mapping[str, float],
    settings: Mapping[str, Any],
) -> Path:
    """Write `NAME-DEVICE.json` into `folder` (created if missing), atomically; return its path. Raises StorageError."""
    record = {
        "name": name,
        "command": _command(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit_of(Path(__file__).parent),
        "device": device_name(),
        "cpu": {"model": _cpu_model(), "instructions": list(vector_instructions())},
        "load_average": os.getloadavg()[0],
        "versions": {"python": platform.python_version(), **_versions()},
        "settings": dict(settings),
        "measurements": {key: asdict(value) for key, value in measurements.items()},
        "ratios": dict(ratios),
    }
    path = folder / f"{name}-{re.sub(r'[^a-z0-9]+', '-', device_name().lower()).strip('-')}.json"
    atomic_write_text(path, json.dumps(record, indent=2) + "\n")
    return path


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _command() -> str:
    """Return the command line; absolute paths are cut to their last part, so that records name no private folders."""
    return shlex.join(Path(word).name if word.startswith("/") else word for word in sys.argv)


def commit_of(folder: Path) -> str:
    """Return the commit of a folder's checkout; "none" outside a checkout.

    It ends in "-dirty" for local changes, except to records, which several benchmarks in a row leave.
    """
    places = (":/", ":(top,exclude)benchmarks/results")
    git = ("git", "-C", str(folder))
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", *places], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return f"{head}-dirty" if changed.strip() else head


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
