"""Machine code of the GPU kernels: registers, spills, shared memory, matrix instructions, compiled without a GPU.

By machine code, not by clock: the kernels are compiled exactly as a launch on each kind of GPU would compile them.
Exit status 1 if a kernel spills registers, or needs more shared memory than the GPU has.
"""

import argparse
import importlib.util
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import TYPE_CHECKING, Any

from ftsys.bench.harness.output import Cell, Findings, add_output_option, conclude
from ftsys.bench.harness.record import Measurement
from ftsys.console.printer import say
from ftsys.errors import DONE, FAILED, ConfigError
from ftsys.kernels.triton_attention.tiles import SHARED_BYTES

if TYPE_CHECKING:
    from ftsys.bench.kernel_parts.capture import Launch
    from ftsys.bench.kernel_parts.machine_code import MachineCode

CAPABILITIES = (80, 86, 89, 90, 100)
DTYPES = ("bfloat16", "float16")
SPILLED_BYTES = {64: 0, 256: 8}
"""Largest head size -> bytes that a thread of attention may spill. The table of tiles says where 8 bytes are taken."""
REGISTERS, LAYER_REGISTERS = 255, 128
"""Most registers of a thread, and of one around attention: a program of 16 warps does not fit a multiprocessor then."""


def bench_kernels(capabilities: Sequence[int], dtypes: Sequence[str]) -> Findings:
    """Compile every case for each compute capability. Raises ConfigError for an unknown one, or without Triton."""
    if importlib.util.find_spec("triton") is None:
        raise ConfigError("ftsys bench kernels needs Triton, which is not installed. Run: pip install triton.")
    ConfigError.raise_if(
        f"--capabilities {capability} is not one of this benchmark's. Use some of {list(SHARED_BYTES)}."
        for capability in capabilities
        if capability not in SHARED_BYTES
    )
    found = Findings(notes=["by machine code, not by clock: no GPU took part"], plots=False)
    for capability in capabilities:
        title = f"compute capability {capability // 10}.{capability % 10}"
        say(f"{title}: compiling")
        table = found.tables[title] = {}
        for name, launch, code in _compiled(capability, dtypes):
            _add(found, table, f"{title}, {name}", launch, code)
        found.ratios[f"{title}: largest share of shared memory"] = (
            max(row["shared KiB"] for row in table.values()) * 1024 / SHARED_BYTES[capability]
        )
    return found


def _compiled(capability: int, dtypes: Sequence[str]) -> Iterator[tuple[str, "Launch", "MachineCode"]]:
    import torch

    from ftsys.bench.kernel_parts.capture import compiling_for
    from ftsys.bench.kernel_parts.cases import cases
    from ftsys.bench.kernel_parts.machine_code import machine_code

    for case, dtype, drops in product(cases(), dtypes, (True, False)):
        how = f"{dtype}, {'with' if drops else 'no'} dropout"
        with compiling_for(capability) as launches:
            case.launch(getattr(torch, dtype), drops)
        with ThreadPoolExecutor() as pool:  # each waits for a process of its own
            for launch, code in zip(launches, pool.map(machine_code, [each.binary for each in launches]), strict=True):
                yield f"{case.name}, {launch.kernel}, {how}", launch, code


def _add(found: Findings, table: dict[str, dict[str, Cell]], name: str, launch: "Launch", code: "MachineCode") -> None:
    """Add one kernel's figures to the measurements, and the worst of all its variants to the table."""
    row = _row(launch, code)
    for column, value in row.items():
        found.measurements[f"{name}: {column}"] = Measurement.of([value], column)
    _, case, kernel, _, _ = name.split(", ")
    worst = table.setdefault(f"{case}, {kernel}", dict(row))
    worst |= {column: max(value, worst.get(column, value)) for column, value in row.items()}


def _row(launch: "Launch", code: "MachineCode") -> dict[str, Cell]:
    row: dict[str, Cell] = {
        "registers": code.registers,
        "spilled bytes": code.spilled_bytes,
        "shared KiB": code.shared_bytes / 1024,
        "matrix instructions": code.matrix_instructions,
        "narrow shared loads": code.narrow_shared_loads,
        "narrow global loads": code.narrow_global_loads,
        "instructions": code.instructions,
    }
    repeats = times_computed(launch, code)
    return row if repeats is None else row | {"times a product is computed": repeats}


def times_computed(launch: "Launch", code: "MachineCode") -> float | None:
    """Return how many times the warps of an attention kernel compute each product: 1 where none repeats another's.

    None for other kernels, and where the instructions do not name their sizes.
    """
    from ftsys.bench.kernel_parts.cases import PRODUCTS

    products, given = PRODUCTS.get(launch.kernel), launch.arguments
    if products is None or not code.warp_products:
        return None
    return code.warp_products * given["num_warps"] / (products * given["OWN"] * given["VISITED"] * given["SIZE"])


def limits_of(case: str) -> dict[str, int]:
    """Return the most registers and spilled bytes that a thread of a kernel may have; `case` is the case's name."""
    kind, _, size = case.partition(" ")
    if kind != "head":
        return {"registers": LAYER_REGISTERS, "spilled bytes": 0}
    spilled = next(limit for largest, limit in SPILLED_BYTES.items() if int(size) <= largest)
    return {"registers": REGISTERS, "spilled bytes": spilled}


def broken_limits(found: Findings) -> list[str]:
    """Return one line for each kernel that exceeds `limits_of` its case, or the GPU's shared memory."""
    broken = []
    for title, table in found.tables.items():
        shared = {"shared KiB": SHARED_BYTES[round(float(title.split()[-1]) * 10)] / 1024}
        for name, row in table.items():
            broken += [
                f"{title}, {name}: {row[column]:g} {column}, and {limit:g} is the limit"
                for column, limit in (limits_of(name.split(", ")[0]) | shared).items()
                if row[column] > limit
            ]
    return broken


def main(words: Sequence[str]) -> int:
    """`ftsys bench kernels`: compile, print, record; exit status 1 if a limit is broken."""
    parser = argparse.ArgumentParser(prog="ftsys bench kernels", description=__doc__, allow_abbrev=False)
    shown = " ".join(map(str, CAPABILITIES))
    text = f"compute capabilities, 90 for 9.0 (default {shown})"
    parser.add_argument("--capabilities", nargs="+", type=int, default=list(CAPABILITIES), metavar="N", help=text)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES), help="number formats")
    parser.add_argument("--name", default="kernels", help="the record's name")
    add_output_option(parser)
    options: Any = parser.parse_args(words)
    found = bench_kernels(options.capabilities, options.dtypes)
    broken = broken_limits(found)
    found.notes += broken
    conclude(options.name, found, options.output)
    return FAILED if broken else DONE
