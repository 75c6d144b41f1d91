"""Measures time and memory of `ftsys predict` with a million pairs like MRPC's, by MiniLM.

    python benchmarks/score_at_scale.py WORK_DIR [--rows 1000000] [--precision bf16]

Writes WORK_DIR/pairs.csv, runs the command and looks at its resident memory every second. The record has rows a second,
the largest memory, and the slope of a line through the memory of the second half in bytes a row.
"""

import argparse
import csv
import os
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import psutil

from ftsys.bench.harness.models import MINILM, model_folders
from ftsys.bench.harness.record import Measurement, write_record
from ftsys.bench.predict.bench import classifier_of
from ftsys.bench.predict.rows import make_rows
from ftsys.console.printer import show


def write_pairs(table: Path, rows: int) -> None:
    """Write a CSV file of `rows` pairs, no two of them the same."""
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("sentence1", "sentence2"))
        writer.writerows(make_rows("pairs", rows, len))


def score(folder: Path, model: Path, precision: str) -> tuple[float, list[tuple[float, int]]]:
    """Run the command; returns its seconds, and (seconds since the start, resident bytes) once a second."""
    words = [sys.executable, "-m", "ftsys", "predict", str(model), str(folder / "pairs.csv")]
    words += ["--output", str(folder / "scored.csv"), "--overwrite", "--precision", precision]
    started, seen = time.monotonic(), list[tuple[float, int]]()
    with subprocess.Popen(words) as process:
        observed = psutil.Process(process.pid)
        while process.poll() is None:
            seen.append((time.monotonic() - started, observed.memory_info().rss))
            time.sleep(1)
    if process.returncode:
        raise SystemExit(process.returncode)
    return time.monotonic() - started, seen


def main() -> None:
    """Measure, print and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    write_pairs(folder / "pairs.csv", options.rows)
    encoder = model_folders((MINILM,), folder)[MINILM]
    model = classifier_of(MINILM, encoder, folder / "model")
    seconds, seen = score(folder, model, options.precision)
    with (folder / "scored.csv").open() as stream:
        scored = sum(1 for _ in islice(stream, 1, None))
    if scored != options.rows:
        raise SystemExit(f"the output has {scored} rows, the file {options.rows}")
    rate = options.rows / seconds
    times, memory = np.array(seen[len(seen) // 2 :], np.float64).T
    measurements = {
        "rows": Measurement.of([rate], "rows/s", higher_is_better=True),
        "largest resident memory": Measurement.of([float(max(size for _, size in seen))], "bytes"),
        "slope of the memory": Measurement.of([float(np.polyfit(times * rate, memory, 1)[0])], "bytes/row"),
    }
    settings = {"rows": options.rows, "precision": options.precision, "cores": len(os.sched_getaffinity(0))}
    path = write_record(options.output, "score-at-scale", measurements, {}, settings)
    for name, value in measurements.items():
        show(f"{name:<26}{value.median:>18,.1f} {value.unit}")
    show(f"record  {path}")


if __name__ == "__main__":
    main()
