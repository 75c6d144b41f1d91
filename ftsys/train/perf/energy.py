"""Reads energy counters: NVML's of a GPU, and RAPL's of the CPU packages and their DRAM. Imports no torch.

Both count what the device uses for everybody: a GPU, or a whole machine, with all other programs on it.
"""

import ctypes
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

POWERCAP = Path("/sys/class/powercap")
"""Where Linux shows RAPL: `intel-rapl:N` is a package and `intel-rapl:N:M` a part of it, with AMD's CPUs too."""
NVML = "libnvidia-ml.so.1"
"""The library of NVIDIA's driver that tells what a GPU does."""

_ZONE = re.compile(r"intel-rapl:\d+(?P<part>:\d+)?")


class NotToldError(Exception):
    """Raised with the reason why the energy of a device is not known."""


class Counter(Protocol):
    """Counts joules from its construction on. `place` names what it counts: two counters of one place are the same."""

    name: str
    place: str

    def joules(self) -> float:
        """Return the joules so far. Raises NotToldError."""


@dataclass
class _Zone:
    """A counter of the kernel in microjoules. It begins again from 0 at `most`."""

    path: Path
    most: int
    last: int
    total: int = 0

    def advance(self) -> int:
        """Return the microjoules so far."""
        now = _number(self.path / "energy_uj")
        self.total += now - self.last + (self.most if now < self.last else 0)
        self.last = now
        return self.total


class Rapl:
    """The energy of all CPU packages of this machine and of their memory, where the kernel tells it.

    A counter wraps around after minutes to hours: `joules` has to be called more often.
    """

    name = "rapl"

    def __init__(self, host: str, root: Path = POWERCAP) -> None:
        """Open the counters. Raises NotToldError where there are none, or where this user may not read them."""
        self.place = host
        paths = [path for path in sorted(root.glob("intel-rapl:*")) if _is_counted(path)]
        if not paths:
            raise NotToldError(f"{root} has no counter of a CPU package")
        self._zones = [
            _Zone(path, _number(path / "max_energy_range_uj"), _number(path / "energy_uj")) for path in paths
        ]

    def joules(self) -> float:
        """Return the joules so far. Raises NotToldError."""
        return sum(zone.advance() for zone in self._zones) / 1e6


def _is_counted(path: Path) -> bool:
    """Return True for a package and for its DRAM, which the package does not contain; cores are parts of a package."""
    match = _ZONE.fullmatch(path.name)
    if match is None:
        return False
    try:
        name = (path / "name").read_text().strip()
    except OSError:
        return False
    return name == "dram" if match["part"] else name.startswith("package")


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except PermissionError:
        raise NotToldError(f"{path} may not be read by this user: ask for read access to it") from None
    except (OSError, ValueError) as error:
        raise NotToldError(f"{path} cannot be read ({error})") from error


class Nvml:
    """The energy of a GPU, which those from Volta on count."""

    name = "nvml"

    def __init__(self, uuid: str, library: Any = None) -> None:
        """Open the GPU of that UUID, with or without "GPU-" before it. Raises NotToldError."""
        self.place = uuid
        self._library = _load() if library is None else library
        self._device = ctypes.c_void_p()
        self._call("nvmlInit_v2")
        name = ctypes.c_char_p(f"GPU-{uuid.removeprefix('GPU-')}".encode())
        self._call("nvmlDeviceGetHandleByUUID", name, ctypes.byref(self._device))
        self._start = self._millijoules()

    def joules(self) -> float:
        """Return the joules so far. Raises NotToldError."""
        return (self._millijoules() - self._start) / 1e3

    def _millijoules(self) -> int:
        value = ctypes.c_ulonglong()
        self._call("nvmlDeviceGetTotalEnergyConsumption", self._device, ctypes.byref(value))
        return value.value

    def _call(self, function: str, *arguments: Any) -> None:
        """Call a function of NVML, which returns 0 if it worked."""
        called = getattr(self._library, function, None)
        if called is None:
            raise NotToldError(f"the driver's {NVML} is too old: it has no {function}")
        status = called(*arguments)
        if status:
            raise NotToldError(f"{function} of NVML gives status {status} for GPU {self.place}")


def _load() -> Any:
    try:
        return ctypes.CDLL(NVML)
    except OSError:
        raise NotToldError(f"{NVML} is not there") from None
