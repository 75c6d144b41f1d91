"""Writes the page of the GPU kernels' machine code, from the record of `ftsys bench kernels`."""

import re
from typing import Any

from tools.docs.markdown import GENERATED, table
from tools.docs.records import read_record

_FIGURE = re.compile(
    r"compute capability (?P<gpu>[\d.]+), (?P<case>[^,]+), (?P<kernel>\w+), \w+, \w+ dropout: (?P<column>.+)"
)
_SHOWN = ("registers", "shared KiB", "matrix instructions", "narrow shared loads")

HEAD = f"""{GENERATED}
# Machine code of the GPU kernels

By machine code, not by clock: no GPU took part. `ftsys bench kernels` launches each kernel with the code of a run, for
every kind of GPU, and stops before the launch on the device. So Triton compiles exactly what a run would: the same
tiles, constants and knowledge of aligned addresses. `cuobjdump`, which Triton's package has, then reads the binary.

Each cell has the largest figure over bf16 and fp16, with and without dropout:
**registers of a thread · shared memory in KiB · matrix instructions · narrow shared loads**.

- Attention is listed by the size of a head; keys, dropout and norms with their gradients by the width of a token's row.
  A LayerNorm is that of residual + dropout(x + bias), a RMSNorm that of x.
- A thread may use 255 registers in attention kernels, and 128 in the others. What does not fit is spilled to memory:
  the command fails if an attention kernel spills for heads of up to 64, or more than 8 bytes for larger ones, or
  another kernel at all.
- A program may use 163 KiB of shared memory on compute capability 8.0, 99 on 8.6 and 8.9, 227 on 9.0 and 10.0. The
  command fails if a kernel needs more.
- Matrix instructions are HMMA (one warp computes 16 x 8 x 16 products), HGMMA on 9.0 (four warps, 64 rows) and UTCHMMA
  on 10.0.
- Narrow shared loads are prone to bank conflicts: loads of less than 16 bytes a thread from shared memory (LDS).
  Triton swizzles what it reads by LDSM or 16 bytes at a time, so that no two threads of a warp read
  different rows of one bank. What it reads in smaller parts lies in plain rows, where they may.
- An instruction in a loop counts once.
"""


def machine_code_page() -> str:
    """Return the page: one table of kernels by compute capability, and what holds for all of them."""
    measured = read_record("kernels")["measurements"]
    worst: dict[tuple[str, str, str], float] = {}
    for name, each in measured.items():
        found = _FIGURE.fullmatch(name)
        assert found is not None, name
        key = (f"{found['case']}, {found['kernel']}", found["gpu"], found["column"])
        worst[key] = max(each["median"], worst.get(key, 0.0))
    return "\n".join([HEAD, _by_kernel(worst), _for_all(worst)])


def _by_kernel(worst: dict[tuple[str, str, str], float]) -> str:
    kernels, gpus = (list(dict.fromkeys(key[place] for key in worst)) for place in (0, 1))
    rows = [(kernel, *(_cell(worst, kernel, gpu) for gpu in gpus)) for kernel in kernels]
    return table(("kernel", *gpus), rows, right=range(1, len(gpus) + 1))


def _cell(worst: dict[tuple[str, str, str], float], kernel: str, gpu: str) -> str:
    return " · ".join(f"{worst[kernel, gpu, column]:.0f}" for column in _SHOWN)


def _for_all(worst: dict[tuple[str, str, str], float]) -> str:
    def most(column: str, kernels: Any = lambda kernel: True) -> float:
        return max(value for (kernel, _, found), value in worst.items() if found == column and kernels(kernel))

    columns = "narrow global loads"
    attention = most(columns, lambda kernel: kernel.startswith("head") and "mask_bits" not in kernel)
    around = most(columns, lambda kernel: kernel.startswith("width"))
    small = most("times a product is computed", lambda kernel: "head 256" not in kernel)
    return (
        f"Over all of them: {most('spilled bytes'):.0f} bytes are spilled. The attention kernels have {attention:.0f} "
        f"loads of one or two bytes from the GPU's memory, dropout and norms {around:.0f}: the mask's numbers, of two "
        f"windows that begin anywhere in their tables. The warps of a program compute each product {small:g} "
        f"time(s) for heads of up to 128, {most('times a product is computed'):g} for 256; the "
        "instructions of 10.0 do not name their sizes.\n"
    )
