"""Measures plans of 100 million examples, and the steps of 4,096 ranks, which are simulated one after the other.

    python benchmarks/plan_at_scale.py [--rows 100000000] [--ranks 4096]

Lengths are drawn from 6 to 128 tokens, 32 examples for each rank and step. No rank is started: a process does what a
rank does, and a new one is taken for each kind of step and order. It plans the epoch, takes the first step and steps
from the middle, as after a resume, and then takes the same step as each rank in turn: together they must have all of
its examples, in equal numbers of micro-batches.
"""

import argparse
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ftsys.bench.harness.record import Measurement, seconds, write_record
from ftsys.bench.harness.turns import peak_memory
from ftsys.console.printer import show
from ftsys.data.batching.plan import ORDERS, EpochPlan, plan_epoch, plan_local_batch

EXAMPLES = 32
"""Examples of a rank in a step, in the mean where steps are sized by tokens."""
MICRO_TOKENS = 1024
MIDDLE_STEPS = 20
SIZES = ("examples", "tokens")


def run_case(rows: int, ranks: int, size: str, order: str) -> dict[str, Any]:
    """Plan an epoch and take steps of it as a rank does; returns seconds and bytes."""
    lengths = np.random.default_rng(0).integers(6, 129, rows, dtype=np.int32)
    asked = {"global_size": EXAMPLES * ranks}
    if size == "tokens":
        asked = {"global_tokens": int(EXAMPLES * ranks * lengths[:100_000].mean())}
    start = time.perf_counter()
    plan = plan_epoch(lengths, 22, 0, order=order, **asked)
    figures: dict[str, Any] = {"plan": time.perf_counter() - start}
    half = len(plan) // 2
    for name, steps in {"first": range(1), "middle": range(half, min(half + MIDDLE_STEPS, len(plan)))}.items():
        figures[name] = [seconds(partial(local_plan, plan, lengths, k, 0, ranks)) for k in steps]
    figures["bytes"] = float(peak_memory())
    return figures | {"ranks": all_ranks(plan, lengths, ranks)}


def local_plan(plan: EpochPlan, lengths: np.ndarray, k: int, rank: int, ranks: int) -> list[np.ndarray]:
    """Return the micro-batches of a rank in step `k`."""
    ids = plan.step(k)
    return list(plan_local_batch(ids, lengths[ids], rank, ranks, MICRO_TOKENS).micro_batches)


def all_ranks(plan: EpochPlan, lengths: np.ndarray, ranks: int) -> list[float]:
    """Return the seconds that each rank takes for the plan of step 0. Raises AssertionError if they do not fit."""
    found, taken = [], []
    for rank in range(ranks):
        start = time.perf_counter()
        found.append(local_plan(plan, lengths, 0, rank, ranks))
        taken.append(time.perf_counter() - start)
    assert len({len(parts) for parts in found}) == 1, "ranks have different numbers of micro-batches"
    ids = np.concatenate([part for parts in found for part in parts])
    assert np.array_equal(np.sort(ids), np.sort(plan.step(0))), "the ranks do not share out the step's examples"
    return taken


def main() -> None:
    """Measure, print and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--ranks", type=int, default=4096)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        show(json.dumps(run_case(options.rows, options.ranks, *options.case)))
        return
    measurements: dict[str, Measurement] = {}
    for size in SIZES:
        for order in ORDERS:
            words = [sys.executable, __file__, "--rows", str(options.rows), "--ranks", str(options.ranks)]
            said = subprocess.run([*words, "--case", size, order], stdout=subprocess.PIPE, text=True, check=True).stdout
            measurements |= measurements_of(f"steps of {size}, {order}", json.loads(said))
    settings = {"rows": options.rows, "ranks": options.ranks, "examples of a rank": EXAMPLES}
    path = write_record(options.output, "plan-at-scale", measurements, {}, settings | {"micro tokens": MICRO_TOKENS})
    for name, value in measurements.items():
        show(f"{name:<64}{value.median:>18,.4f} {value.unit}")
    show(f"record  {path}")


def measurements_of(name: str, figures: dict[str, Any]) -> dict[str, Measurement]:
    """Name the figures of a case."""
    return {
        f"{name}: an epoch's plan": Measurement.of([figures["plan"]], "s"),
        f"{name}: the process' memory": Measurement.of([figures["bytes"]], "bytes"),
        f"{name}: a rank's first step": Measurement.of(figures["first"], "s"),
        f"{name}: a rank's steps from the middle": Measurement.of(figures["middle"], "s"),
        f"{name}: the same step as each rank": Measurement.of(figures["ranks"], "s"),
    }


if __name__ == "__main__":
    main()
