"""Describes GPUs by name, so that a run can be planned for a GPU that is not in this machine.

Rates are the vendor's dense figures (no sparsity): tensor cores with float32 accumulation for 16-bit products, plain
cores for float32, because torch does not use TF32 unless it is told to. Memory is the total that torch reports, a
little less than the name says.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from ftsys.errors import ConfigError

GIB = 2**30
_TERA, _GIGA = 1e12, 1e9


@dataclass(frozen=True)
class Gpu:
    """One GPU model. Rates in operations per second, bandwidths in bytes per second and direction."""

    name: str
    memory: int
    """Bytes."""
    rate_16: float
    """In fp16, and in bf16 where the GPU has it."""
    rate_32: float
    memory_bandwidth: float
    link: float
    """Bandwidth to another GPU of the machine: NVLink, else PCIe."""
    has_bf16: bool = True
    host_link: float = 32 * _GIGA
    """Bandwidth to the host's memory: PCIe."""

    def rate(self, precision: str) -> float:
        """Return the operations per second of matrix products."""
        return self.rate_32 if precision == "fp32" else self.rate_16


def _gpu(name: str, gib: float, rates: tuple[float, float], gigabytes: tuple[float, float], **more: float) -> Gpu:
    memory_bandwidth, link = (value * _GIGA for value in gigabytes)
    host_link = more.get("host", 32.0) * _GIGA
    half, single = (rate * _TERA for rate in rates)
    return Gpu(name, int(gib * GIB), half, single, memory_bandwidth, link, bool(more.get("bf16", 1)), host_link)


GPUS: dict[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        _gpu("h200-141g", 139.8, (989, 67), (4800, 450), host=64.0),
        _gpu("h100-80g", 79.1, (989, 67), (3350, 450), host=64.0),
        _gpu("h100nvl-94g", 93.1, (835, 60), (3900, 300), host=64.0),
        _gpu("h100pcie-80g", 79.1, (756, 51), (2000, 64), host=64.0),
        _gpu("gh200-96g", 94.5, (989, 67), (4000, 450), host=450.0),
        _gpu("gb200-186g", 184.0, (2500, 80), (8000, 900), host=450.0),
        _gpu("b200-180g", 178.3, (2250, 80), (8000, 900), host=64.0),
        _gpu("a100-80g", 79.1, (312, 19.5), (2039, 300)),
        _gpu("a100-40g", 39.4, (312, 19.5), (1555, 300)),
        _gpu("l40s-48g", 44.3, (362, 91.6), (864, 32)),
        _gpu("l40-48g", 44.3, (181, 90.5), (864, 32)),
        _gpu("l4-24g", 22.0, (121, 30.3), (300, 32)),
        _gpu("a10-24g", 22.0, (125, 31.2), (600, 32)),
        _gpu("rtx4090-24g", 23.5, (165, 82.6), (1008, 32)),
        _gpu("v100-32g", 31.7, (125, 15.7), (900, 150), bf16=0, host=16.0),
        _gpu("v100-16g", 15.8, (125, 15.7), (900, 150), bf16=0, host=16.0),
        _gpu("t4-16g", 14.6, (65, 8.1), (320, 16), bf16=0, host=16.0),
    )
}
"""Source: NVIDIA's data sheets; SXM boards where the name does not say another form."""

_DRIVER_NAMES = {
    "h200-141g": r"H200",
    "h100-80g": r"H100 80GB HBM3",
    "h100nvl-94g": r"H100 NVL",
    "h100pcie-80g": r"H100 PCIe",
    "gh200-96g": r"GH200 480GB",
    "gb200-186g": r"GB200",
    "b200-180g": r"B200",
    "a100-80g": r"A100(-SXM4-80GB|-SXM-80GB| 80GB PCIe|-PCIE-80GB)",
    "a100-40g": r"A100-(SXM4|SXM|PCIE)-40GB",
    "l40s-48g": r"L40S",
    "l40-48g": r"L40",
    "l4-24g": r"L4",
    "a10-24g": r"A10",
    "rtx4090-24g": r"RTX 4090",
    "v100-32g": r"V100-\w+-32GB",
    "v100-16g": r"V100-\w+-16GB",
    "t4-16g": r"T4",
}
"""Name of a row in `GPUS` -> pattern of the whole name that the driver gives the GPU, without its maker.

The whole name: "A10-24Q" is a virtual GPU and "A100-SXM4-40GB MIG 1g.5gb" a seventh of one, with less memory.
"""
_MAKER = r"(?:(?:NVIDIA|Tesla|GeForce) )*"


def gib(size: float) -> str:
    """Format bytes as GiB with one decimal."""
    return f"{size / GIB:.1f}"


def gpu_named(name: str) -> Gpu:
    """Return the table's row. Raises ConfigError, with all names, for a name that is not in it."""
    if name not in GPUS:
        raise ConfigError(f"--gpu {name!r} is not in the table: write one of {', '.join(GPUS)}, or give --gpu-memory.")
    return GPUS[name]


def gpu_of(model: str) -> Gpu | None:
    """Return the table's row for a driver's name such as "NVIDIA A100-SXM4-40GB"; None where there is none."""
    return next((GPUS[name] for name, pattern in _DRIVER_NAMES.items() if re.fullmatch(_MAKER + pattern, model)), None)


def seen_models(root: Path = Path("/")) -> list[str]:
    """Read the driver's names of this machine's GPUs."""
    texts = [path.read_text() for path in sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))]
    found = (re.search(r"^Model:\s*(.+?)\s*$", text, re.MULTILINE) for text in texts)
    return [match[1] for match in found if match]


def parse_memory(text: str) -> int:
    """Parse "24GiB", "24 GB" or "24" (GiB) into bytes. Raises ConfigError for other text."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(GiB|GB|G|MiB)?\s*", text, re.IGNORECASE)
    size = float(match[1]) * {"gb": 10**9, "mib": 2**20}.get((match[2] or "").lower(), GIB) if match else 0.0
    if not 1 <= size < math.inf:
        raise ConfigError(f"--gpu-memory {text[:80]!r} is not an amount of memory: write it as 24GiB.")
    return int(size)
