"""Measures the gather of 100 million predictions: time, and memory beside what ranks hold anyway.

    python benchmarks/gather_at_scale.py [--rows 100000000] [--ranks 2]

Each gloo rank computes the predictions of its rows of two classes from their ids, no model takes part, and all ranks
gather them as an evaluation does. The record has the seconds, and the largest resident memory of a rank over the bytes
of its own predictions and of the whole result.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import distributed

from ftsys.bench.harness.record import Measurement, write_record
from ftsys.bench.harness.turns import peak_memory
from ftsys.console.printer import show
from ftsys.train.trainer.predictions import ROWS_OF_A_PIECE, predict_all

BATCH = 1 << 16
CLASSES = 2


class Ids:
    """Stands for a loader whose batches have example ids and labels, and no tokens."""

    def __init__(self, rows: int, rank: int, ranks: int) -> None:
        self.dataset, self.ranks = range(rows), ranks
        self._starts = range(rank * BATCH, rows, ranks * BATCH)

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Any]:
        for start in self._starts:
            ids_S = torch.arange(start, min(start + BATCH, len(self.dataset)))
            yield SimpleNamespace(example_ids_S=ids_S, labels_S=ids_S % CLASSES)


def logits_of(ids_S: Any, library: Any) -> Any:
    """Return (S, 2) numbers that tell the id, as tensors or as arrays."""
    told_S = ids_S % 1000003
    return library.stack([told_S, -told_S], 1)


def run_rank(rows: int) -> None:
    """Gather, check every number, and print this rank's figures as JSON."""
    distributed.init_process_group("gloo")
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    before, start = peak_memory(), time.perf_counter()
    loader: Any = Ids(rows, rank, ranks)
    cpu = torch.device("cpu")
    found = predict_all(loader, lambda batch: logits_of(batch.example_ids_S, torch).float(), cpu, lambda done: None)
    seconds, peak = time.perf_counter() - start, peak_memory()
    for begin in range(0, rows, 1 << 22):
        ids = np.arange(begin, min(begin + (1 << 22), rows))
        assert np.array_equal(found.logits[ids], logits_of(ids, np).astype(np.float32))
    print(json.dumps({"rank": rank, "seconds": seconds, "bytes": peak - before}), flush=True)
    distributed.destroy_process_group()


def measure(rows: int, ranks: int) -> list[dict[str, Any]]:
    """Run all ranks on this machine; returns the figures of each."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    words = [*launcher, __file__, "--as-rank", "--rows", str(rows)]
    said = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


def main() -> None:
    """Measure, print and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--as-rank", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_rank:
        return run_rank(options.rows)
    of_a_row = 4 * (1 + CLASSES)  # the loss and the logits
    own, result = options.rows / options.ranks * (8 + of_a_row), options.rows * of_a_row
    figures = measure(options.rows, options.ranks)
    beside = [each["bytes"] - own - result for each in figures]
    measurements = {
        "gather": Measurement.of([max(each["seconds"] for each in figures)], "s"),
        "a rank's own predictions": Measurement.of([own], "bytes"),
        "the whole result": Measurement.of([float(result)], "bytes"),
        "memory beside both": Measurement.of([max(beside)], "bytes"),
    }
    settings = {"rows": options.rows, "ranks": options.ranks, "rows of a piece": ROWS_OF_A_PIECE}
    path = write_record(options.output, "gather-at-scale", measurements, {}, settings)
    for name, value in measurements.items():
        show(f"{name:<26}{value.median:>18,.1f} {value.unit}")
    show(f"record  {path}")
    return None


if __name__ == "__main__":
    main()
