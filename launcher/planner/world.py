"""Reads the ranks of a run and the abilities of their devices from the environment and the machine, without torch."""

import math
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from ftsys.errors import ConfigError, LaunchError
from launcher.planner.gpus import Gpu, gpu_of, seen_models

_BF16_CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
_GPUS_WITHOUT_BF16 = re.compile(r"\b(V100\w*|P100|P40|P4|T4|K80|M40|M60|TITAN|GTX|RTX 20\d\d|Quadro)\b", re.IGNORECASE)

Device = Literal["cpu", "cuda"]

BF16_PAYS_FROM = 1.2
"""How many times faster than in float32 a CPU has to multiply in bf16: below, casting the weights costs the gain."""


@dataclass(frozen=True)
class ProductRates:
    """A CPU's measured rates of matrix products, in FLOP/s."""

    fp32: float
    bf16: float

    @property
    def bf16_pays(self) -> bool:
        """Return True where training in bf16 is expected to be faster than in float32."""
        return self.bf16 >= BF16_PAYS_FROM * self.fp32

    def __str__(self) -> str:
        return f"{self.bf16 / 1e9:,.0f} GFLOP/s in bf16 and {self.fp32 / 1e9:,.0f} in fp32"


@dataclass(frozen=True)
class World:
    """The ranks of a run and the abilities of their devices."""

    ranks: int = 1
    nodes: int = 1
    local_ranks: int = 1
    device: Device = "cpu"
    bf16_supported: bool = False
    launcher: Literal["none", "torchrun", "deepspeed"] = "none"
    gpu: str = ""
    """The GPUs' name in `launcher.planner.gpus`, "" for GPUs that are not there or not all the same."""
    device_memory: int | None = None
    """Bytes of the smallest GPU; None where they are not known."""
    rates: ProductRates | None = None
    """What a rank has measured on its CPU; None for GPUs, and where nothing was measured."""

    def __post_init__(self) -> None:
        """Raise ConfigError for counts below 1."""
        for name in ("ranks", "nodes", "local_ranks"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)!r} is too small: give 1 or more.")


def this_machine(
    environ: Mapping[str, str],
    device: Device | None = None,
    bf16_supported: bool | None = None,
    root: Path = Path("/"),
    device_memory: int | None = None,
    rates: ProductRates | None = None,
) -> World:
    """Describe the world from this process's environment and this machine, without torch.

    A rank that has imported torch passes the device, bf16 support and memory that torch reports, and the `rates` that
    it has measured on a CPU; without them the CPU's list of instructions decides about bf16. `root` is the folder that
    holds /proc and /dev.
    """
    gpu = _only_gpu(root) if device != "cpu" else None
    ranks = _count(environ, "WORLD_SIZE")
    local = _count(environ, "LOCAL_WORLD_SIZE", "LOCAL_SIZE")
    device = device or ("cuda" if seen_gpus(root) else "cpu")
    if bf16_supported is None:
        on_cpu = rates.bf16_pays if rates else cpu_has_bf16(root)
        bf16_supported = gpu_has_bf16(root) if device == "cuda" else on_cpu
    return World(
        ranks=ranks,
        nodes=max(1, math.ceil(ranks / local)),
        local_ranks=local,
        device=device,
        bf16_supported=bf16_supported,
        launcher=_launcher(environ),
        gpu=gpu.name if gpu and device == "cuda" else "",
        device_memory=device_memory or (gpu.memory if gpu and device == "cuda" else None),
        rates=rates,
    )


def _only_gpu(root: Path) -> Gpu | None:
    """Return the model that all GPUs of this machine are; None for a mix or for unknown GPUs."""
    models = {gpu_of(model) for model in seen_models(root)}
    return models.pop() if len(models) == 1 else None


def _count(environ: Mapping[str, str], *names: str) -> int:
    for name in names:
        text = environ.get(name)
        if text:
            if not text.isdecimal() or int(text) < 1:
                raise LaunchError(
                    f"{name}={text!r} in the environment is not a number of ranks: unset it or correct it."
                )
            return int(text)
    return 1


def _launcher(environ: Mapping[str, str]) -> Literal["none", "torchrun", "deepspeed"]:
    if "TORCHELASTIC_RUN_ID" in environ:
        return "torchrun"
    return "deepspeed" if "CROSS_SIZE" in environ else "none"  # only deepspeed's launcher sets CROSS_SIZE


def seen_gpus(root: Path = Path("/")) -> int:
    """Count the NVIDIA GPUs by their device files (/dev/nvidia0, ...)."""
    return len(list((root / "dev").glob("nvidia[0-9]*")))


def visible_gpus(environ: Mapping[str, str], root: Path = Path("/")) -> tuple[str, ...]:
    """Return the GPUs that a process with this environment may use, as CUDA_VISIBLE_DEVICES names them."""
    named = environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return tuple(str(number) for number in range(seen_gpus(root)))
    usable = []
    for name in (part.strip() for part in named.split(",")):
        if not name or name.startswith("-") or name == "NoDevFiles":
            break  # as CUDA reads it: whatever follows an invalid name is invisible too
        usable.append(name)
    return tuple(usable)


def check_slices(gpus: Sequence[str], ranks: int) -> None:
    """Raise LaunchError for several ranks on slices of GPUs (MIG): a process sees one of those in CUDA_VISIBLE_DEVICES.

    `gpus`: as `visible_gpus` returns them.
    """
    if ranks > 1 and any(name.startswith("MIG-") for name in gpus):
        raise LaunchError(
            f"{ranks} ranks on {socket.gethostname()} need a GPU each. CUDA_VISIBLE_DEVICES={','.join(gpus)!r} names "
            "MIG slices, and a process sees one of them: start one rank on a slice, or use whole GPUs."
        )


def cpu_has_bf16(root: Path = Path("/")) -> bool:
    """Return True where the CPU has bf16 instructions (AVX-512 BF16 or AMX)."""
    cpuinfo = root / "proc/cpuinfo"
    return cpuinfo.exists() and not _BF16_CPU_FLAGS.isdisjoint(cpuinfo.read_text().split())


def gpu_has_bf16(root: Path = Path("/")) -> bool:
    """Return False where a GPU's name is of a model without bf16 (compute capability below 8.0)."""
    names = [path.read_text() for path in (root / "proc/driver/nvidia/gpus").glob("*/information")]
    return not any(_GPUS_WITHOUT_BF16.search(name) for name in names)


def usable_gpus(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the visible GPUs that the installed torch can use: none for a CPU build."""
    return () if torch_is_for_cpus() else visible_gpus(environ)


def torch_is_for_cpus() -> bool:
    """Return True where the installed torch was built without CUDA, by its version and without importing it.

    Raises LaunchError where torch is not installed.
    """
    try:
        return version("torch").endswith("+cpu")
    except PackageNotFoundError:
        raise LaunchError(f"torch is not installed for {sys.executable} on {socket.gethostname()}.") from None
