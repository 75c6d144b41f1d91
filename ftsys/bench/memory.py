"""Compares predicted with measured memory, for the models and engines of `memory_parts.cases`.

Without ZeRO, memory is measured with torch's fake tensors and memory tracker; for DDP, ZeRO and offload, as the live
tensors of real gloo ranks. Cases that need a GPU are predicted only, and marked so.
"""

import argparse
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ftsys.bench.harness.output import add_output_option
from ftsys.bench.harness.record import Measurement, write_record
from ftsys.bench.memory_parts.cases import Case, cases
from ftsys.console.printer import show

TOLERANCE = 0.10
"""Largest allowed difference of a prediction, as a fraction of the measurement."""


def measured_cases(
    wanted: str, kept: Path | None, tell: Callable[[str], object] = print
) -> tuple[list[tuple[Case, dict[str, int]]], list[Case]]:
    """Measure the cases whose name matches `wanted`; returns (cases with bytes by part, cases that need a GPU).

    Each result is appended to the JSONL file `kept` at once; results that the file has already are not measured again.
    """
    known = _read(kept)
    found, unverified = [], []
    for case in cases():
        if not re.search(wanted, case.name):
            continue
        if case.how == "none":
            unverified.append(case)
            continue
        if case.name not in known:
            known[case.name] = case.measured()
            _add(kept, case.name, known[case.name])
        found.append((case, known[case.name]))
        tell(line_of(*found[-1]))
    return found, unverified


def _read(kept: Path | None) -> dict[str, dict[str, int]]:
    if kept is None or not kept.exists():
        return {}
    lines = (json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines())
    return {line["name"]: line["bytes"] for line in lines}


def _add(kept: Path | None, name: str, found: dict[str, int]) -> None:
    if kept is not None:
        with kept.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"name": name, "bytes": found}) + "\n")


def line_of(case: Case, found: dict[str, int]) -> str:
    """Format one row: predicted and measured MiB, and their difference."""
    predicted, measured = case.predicted_bytes, found["total"]
    error = predicted / measured - 1
    late = "" if abs(error) <= TOLERANCE else "  <-- beyond the tolerance"
    return f"{case.name:88} {predicted / 2**20:9,.0f} {measured / 2**20:9,.0f} {error:+7.1%}{late}"


def bench_memory(wanted: str = "", kept: Path | None = None) -> dict[str, Any]:
    """Measure; returns {"measurements": bytes, "ratios": predicted / measured, "settings": all rows by part}."""
    found, unverified = measured_cases(wanted, kept)
    return {
        "measurements": {case.name: Measurement.of([float(parts["total"])], "bytes") for case, parts in found},
        "ratios": {case.name: case.predicted_bytes / parts["total"] for case, parts in found},
        "settings": {
            "tolerance": TOLERANCE,
            "how": {"fake": "torch's fake tensors and MemTracker", "ranks": "live tensor bytes of gloo ranks"},
            "rows": [_row(case, parts) for case, parts in found],
            "predicted, not verified": [_row(case, None) for case in unverified],
        },
    }


def _row(case: Case, measured: dict[str, int] | None) -> dict[str, Any]:
    memory = case.predict()
    predicted = {**vars(memory.parts), "total": case.predicted_bytes, "moment": memory.moment}
    row: dict[str, Any] = {"name": case.name, "how": case.how, "predicted": predicted}
    return row if measured is None else {**row, "measured": measured}


def worst(found: dict[str, Any]) -> float:
    """Return the largest difference of a prediction, as a fraction of its measurement."""
    return max((abs(ratio - 1) for ratio in found["ratios"].values()), default=0.0)


def main(argv: Sequence[str]) -> int:
    """Run `ftsys bench memory`: measure, print, write a record; returns 1 where a prediction exceeds the tolerance."""
    parser = argparse.ArgumentParser(prog="ftsys bench memory", description="Compare predicted with measured memory.")
    parser.add_argument(
        "--only", default="", metavar="PATTERN", help="regular expression: measure only cases whose name matches"
    )
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="FILE",
        help="append each result to this file, and do not measure those that it has",
    )
    add_output_option(parser)
    options = parser.parse_args(argv)
    show(f"{'case':88} {'predicted':>9} {'measured':>9} MiB")
    found = bench_memory(options.only, options.keep)
    show(f"{len(found['ratios'])} cases, largest difference {worst(found):.1%}")
    if options.output is not None:
        show(str(write_record(options.output, "memory", **found)))
    return int(worst(found) > TOLERANCE)
