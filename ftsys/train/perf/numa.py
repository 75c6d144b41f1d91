"""Binds a rank to the CPUs and the memory of its GPU's NUMA node, whatever launcher started it. Imports no torch.

torchrun does not do so. Without it the kernel moves a rank between sockets, and its pinned memory may lie behind the
link between them.
"""

import ctypes
import os
import platform
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SWITCH = "FTSYS_NUMA"
"""Environment variable; the value 0 leaves ranks where they are."""
_SET_MEMPOLICY = {"x86_64": 238, "aarch64": 237}
"""Number of the system call set_mempolicy(2), by machine; the C library has no function for it."""
_PREFERRED = 1
_MOST_NODES = 1024


@dataclass(frozen=True)
class Place:
    """The NUMA node of a rank's GPU and the CPUs to bind to; no CPUs where nothing is bound, and the reason then."""

    cpus: frozenset[int] = frozenset()
    node: int = -1
    why_not: str = ""


def bind_near_gpu(environ: Mapping[str, str]) -> str:
    """Bind this process and its threads near its GPU; returns a line about it, empty where there is one NUMA node."""
    place = place_of(environ, os.sched_getaffinity(0))
    if not place.cpus:
        return f"not bound to the GPU's NUMA node: {place.why_not}" if place.why_not else ""
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # a thread that has ended meanwhile
            os.sched_setaffinity(int(thread.name), place.cpus)
    memory = "its memory preferred" if _prefer_memory_of(place.node) else "the memory policy is left as it is"
    return f"bound to {len(place.cpus)} CPUs of NUMA node {place.node}, next to GPU {_index(environ)}; {memory}"


def place_of(environ: Mapping[str, str], allowed: set[int], root: Path = Path("/")) -> Place:
    """Find the CPUs near the GPU of this rank among those that it may use, which srun or a cgroup may have limited."""
    nodes = _cpus_of_nodes(root)
    if len(nodes) < 2:
        return Place()
    if environ.get(SWITCH) == "0":
        return Place(why_not=f"{SWITCH}=0")
    inside = [number for number, cpus in nodes.items() if allowed <= cpus]
    if inside:
        return Place(why_not=f"it is bound to CPUs of node {inside[0]} already")
    address = _address_of_gpu(environ, root)
    if address is None:
        return Place(why_not="the GPU's PCI address is not known")
    node = _number(root / f"sys/bus/pci/devices/{address}/numa_node")
    near = nodes.get(node, frozenset()) & allowed
    if not near:
        told = f"the CPUs allowed here are not on node {node}" if node in nodes else "the system does not tell its node"
        return Place(why_not=f"GPU {address}: {told}")
    return Place(near, node)


def _cpus_of_nodes(root: Path) -> dict[int, frozenset[int]]:
    """Return NUMA node -> its CPUs, for nodes that have any; a GPU's own memory may be a node without CPUs."""
    found = {}
    for folder in sorted((root / "sys/devices/system/node").glob("node[0-9]*")):
        cpus = _listed((folder / "cpulist").read_text())
        if cpus:
            found[int(folder.name.removeprefix("node"))] = cpus
    return found


def _listed(text: str) -> frozenset[int]:
    """Read a list such as 0-3,8."""
    pairs = re.findall(r"(\d+)(?:-(\d+))?", text)
    return frozenset(cpu for first, last in pairs for cpu in range(int(first), int(last or first) + 1))


def _address_of_gpu(environ: Mapping[str, str], root: Path) -> str | None:
    """Return the PCI address of this rank's GPU, such as 0000:3b:00.0; None where it cannot be told for sure."""
    gpus = _usable_gpus(root)
    name = _index(environ)
    if name.startswith("GPU-"):
        return next((address for address, uuid, _ in gpus if uuid.startswith(name)), None)
    alike = len({model for _, _, model in gpus}) <= 1 or environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    # CUDA numbers GPUs of one model by their addresses; of several models the fastest comes first.
    return gpus[int(name)][0] if alike and name.isdecimal() and int(name) < len(gpus) else None


def _index(environ: Mapping[str, str]) -> str:
    """Return the name of this rank's GPU in CUDA_VISIBLE_DEVICES, else its local rank."""
    local = environ.get("LOCAL_RANK", "0")
    named = [name.strip() for name in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    if not named:
        return local
    return named[int(local)] if local.isdecimal() and int(local) < len(named) else ""


def _usable_gpus(root: Path) -> list[tuple[str, str, str]]:
    """Return (PCI address, UUID, model) of each GPU that this process may open, by address."""
    found = []
    for path in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
        facts = dict(re.findall(r"^([^:\n]+):\s*(.*?)\s*$", path.read_text(), re.MULTILINE))
        if _can_open(root / f"dev/nvidia{facts.get('Device Minor', '')}"):
            found.append((path.parent.name.lower(), facts.get("GPU UUID", ""), facts.get("Model", "")))
    return found


def _can_open(device: Path) -> bool:
    """Return False for a GPU of another job: SLURM's cgroup refuses to open it."""
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return -1


def _prefer_memory_of(node: int) -> bool:
    """Have new memory come from a NUMA node while it has some; returns False where the system refuses."""
    call = _SET_MEMPOLICY.get(platform.machine())
    if call is None or not 0 <= node < _MOST_NODES:
        return False
    mask = (ctypes.c_ulong * (_MOST_NODES // (8 * ctypes.sizeof(ctypes.c_ulong))))()
    bits = 8 * ctypes.sizeof(ctypes.c_ulong)
    mask[node // bits] = 1 << (node % bits)
    libc = ctypes.CDLL(None)
    return bool(libc.syscall(ctypes.c_long(call), ctypes.c_int(_PREFERRED), mask, ctypes.c_ulong(_MOST_NODES)) == 0)
