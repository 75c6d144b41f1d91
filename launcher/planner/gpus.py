"""GPUs by name: what a plan has to know of one that may not be in this machine.

Rates are the makers' dense figures (no sparsity), tensor cores with float32 sums for 16-bit products, plain cores for
float32: torch multiplies float32 exactly unless it is told otherwise. Memory is what torch reports as total, a little
less than what the name says.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from ftsys.errors import ConfigError

GIB = 2**30
_TERA, _GIGA = 1e12, 1e9


@dataclass(frozen=True)
class Gpu:
    """One model of GPU. Rates in operations a second, bandwidths in bytes a second and direction."""

    name: str
    memory: int
    """Bytes."""
    rate_16: float
    """fp16, and bf16 where it has it."""
    rate_32: float
    memory_bandwidth: float
    link: float
    """To another GPU of the machine: NVLink, else PCIe."""
    has_bf16: bool = True
    host_link: float = 32 * _GIGA
    """To the machine's memory: PCIe."""

    def rate(self, precision: str) -> float:
        """Operations a second of matrix products."""
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
        _gpu("a100-80g", 79.1, (312, 19.5), (2039, 300)),
        _gpu("a100-40g", 39.4, (312, 19.5), (1555, 300)),
        _gpu("l40s-48g", 44.3, (362, 91.6), (864, 32)),
        _gpu("a10-24g", 22.0, (125, 31.2), (600, 32)),
        _gpu("rtx4090-24g", 23.5, (165, 82.6), (1008, 32)),
        _gpu("v100-32g", 31.7, (125, 15.7), (900, 150), bf16=0, host=16.0),
        _gpu("v100-16g", 15.8, (125, 15.7), (900, 150), bf16=0, host=16.0),
        _gpu("t4-16g", 14.6, (65, 8.1), (320, 16), bf16=0, host=16.0),
    )
}
"""Data sheets of NVIDIA; SXM boards where there are several."""

_SEEN = {
    "h200-141g": r"H200",
    "h100-80g": r"H100.*(80GB|HBM3)",
    "a100-80g": r"A100.*80GB",
    "a100-40g": r"A100.*40GB",
    "l40s-48g": r"L40S",
    "a10-24g": r"\bA10\b",
    "rtx4090-24g": r"RTX 4090\b(?! ?D)",
    "v100-32g": r"V100.*32GB",
    "v100-16g": r"V100.*16GB",
    "t4-16g": r"\bT4\b",
}


def gpu_named(name: str) -> Gpu:
    """The table's row. Raises ConfigError, with all names, for another one."""
    if name not in GPUS:
        raise ConfigError(f"--gpu {name!r} is not in the table: write one of {', '.join(GPUS)}, or give --gpu-memory.")
    return GPUS[name]


def gpu_of(model: str) -> Gpu | None:
    """The table's row for a driver's name of a GPU, such as "NVIDIA A100-SXM4-40GB"; None where it has none."""
    return next((GPUS[name] for name, pattern in _SEEN.items() if re.search(pattern, model)), None)


def seen_models(root: Path = Path("/")) -> list[str]:
    """The names by which the driver calls this machine's GPUs."""
    texts = [path.read_text() for path in sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))]
    found = (re.search(r"^Model:\s*(.+?)\s*$", text, re.MULTILINE) for text in texts)
    return [match[1] for match in found if match]


def parse_memory(text: str) -> int:
    """Bytes of "24GiB", "24 GB" or "24" (GiB). Raises ConfigError for what is no amount of memory."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(GiB|GB|G|MiB)?\s*", text, re.IGNORECASE)
    if not match or float(match[1]) <= 0:
        raise ConfigError(f"--gpu-memory {text!r} is no amount of memory: write it as 24GiB.")
    unit = {"gb": 10**9, "mib": 2**20}.get((match[2] or "GiB").lower(), GIB)
    return int(float(match[1]) * unit)
