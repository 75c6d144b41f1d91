"""Reads figures from a compiled kernel, with `cuobjdump`, which Triton's package has.

Counts are of instructions in the program, so an instruction in a loop counts once.
"""

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_USAGE = re.compile(r"REG:(\d+) STACK:(\d+)")
# The predicate @!PT is never true: such a load only separates others.
_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@(?!!PT)!?U?P\w+\s+)?([A-Z][A-Z0-9_.a-z]*)", re.MULTILINE)
_PRODUCT = re.compile(r"HMMA\.(?P<ampere>16816|1688)|HGMMA\.64x(?P<columns>\d+)x16|UTC\w*MMA")
_AMPERE_PRODUCTS = {"16816": 16 * 8 * 16, "1688": 16 * 8 * 8}
_NARROW_GLOBAL = re.compile(r"LDG\.(?:\w+\.)*[US](?:8|16)\b")


@dataclass(frozen=True)
class MachineCode:
    """Figures of one kernel as machine code."""

    registers: int
    """Registers of a thread."""
    spilled_bytes: int
    """Bytes of a thread's stack, which holds the registers that did not fit."""
    shared_bytes: int
    """Shared memory of a program."""
    matrix_instructions: int
    """Products of matrix units: HMMA (one warp), HGMMA (four warps of Hopper), UTCHMMA (a program on Blackwell)."""
    narrow_shared_loads: int
    """Loads from shared memory that are prone to bank conflicts: LDS of less than 16 bytes a thread.

    Triton swizzles what it reads by LDSM or 16 bytes at a time, and lays out the rest in plain rows: there, threads of
    a warp that read one column of several rows share a bank where the row's size is a multiple of 128 bytes.
    """
    narrow_global_loads: int
    """Loads of one or two bytes a thread from the GPU's memory."""
    instructions: int
    warp_products: int | None
    """Multiplications of one warp, each with its addition; None where the instructions do not name their sizes."""


def machine_code(binary: Any) -> MachineCode:
    """Read the figures of what Triton has compiled. Raises CalledProcessError if `cuobjdump` fails."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        return figures_of(_dump(file.name), binary.metadata.shared)


def figures_of(text: str, shared_bytes: int) -> MachineCode:
    """Return the figures of a program from cuobjdump's text: its resource usage, and its instructions (SASS)."""
    found = _USAGE.search(text)
    assert found is not None, text
    return _figures(int(found[1]), int(found[2]), shared_bytes, _INSTRUCTION.findall(text))


def _dump(path: str) -> str:
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    return subprocess.run([tool, "-res-usage", "-sass", path], check=True, capture_output=True, text=True).stdout


def _figures(registers: int, stack: int, shared: int, names: list[str]) -> MachineCode:
    counts = Counter(names)
    products = {name: found for name in counts if (found := _PRODUCT.match(name))}
    return MachineCode(
        registers=registers,
        spilled_bytes=stack,
        shared_bytes=shared,
        matrix_instructions=sum(counts[name] for name in products),
        narrow_shared_loads=sum(n for name, n in counts.items() if name.split(".")[0] == "LDS" and "128" not in name),
        narrow_global_loads=sum(n for name, n in counts.items() if _NARROW_GLOBAL.match(name)),
        instructions=len(names),
        warp_products=_warp_products(counts, products),
    )


def _warp_products(counts: Counter[str], products: dict[str, re.Match[str]]) -> int | None:
    total = 0
    for name, found in products.items():
        if found["ampere"]:
            total += counts[name] * _AMPERE_PRODUCTS[found["ampere"]]
        elif found["columns"]:
            total += counts[name] * 64 * int(found["columns"]) * 16 // 4  # four warps compute it together
        else:
            return None
    return total
