"""Measures time and memory of `ftsys prepare` with millions of short pairs, killed once and started again.

    python benchmarks/prepare_at_scale.py WORK_DIR [--rows 20000000] [--kill-at 0.5]

Writes WORK_DIR/train.tsv with made-up sentences of 5 to 12 words, runs the command, kills it with SIGKILL when the
given share of the rows is saved, and runs it again. The record has rows a second, the largest resident memory of both
processes, and the number of rows that the second one did not tokenize again.
"""

import argparse
import os
import random
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ftsys.bench.harness.record import Measurement, seconds, write_record
from ftsys.console.printer import show
from ftsys.data.store.partial import fullest, saved_rows
from ftsys.data.store.reader import Store

WORDS = (
    "the a this that company market people said year new first government police shares million percent report bank "
    "people court state city week group house president after before against with under over between index stock"
).split()
RUN_FILE = """output_dir = "{folder}/run"
[task]
name = "pairs"
columns = ["first", "second"]
labels = ["different", "same"]
[data]
source = {{train = "{folder}/train.tsv"}}
store = "{folder}/stores"
[model]
name = "bundled"
"""


def lines(rows: int) -> Iterator[str]:
    """Yield a TSV file of `rows` pairs, from seed 0."""
    draw = random.Random(0)
    sentences = [" ".join(draw.choices(WORDS, k=draw.randint(5, 12))) for _ in range(100_000)]
    yield "first\tsecond\tlabel\n"
    for row in range(rows):
        first, second = draw.choices(sentences, k=2)
        yield f"{first} {row}\t{second}\t{('different', 'same')[row % 2]}\n"


def write_inputs(folder: Path, rows: int) -> None:
    """Write the run file and the data; data of the same number of rows is kept."""
    (folder / "run.toml").write_text(RUN_FILE.format(folder=folder))
    table, note = folder / "train.tsv", folder / "rows.txt"
    if note.exists() and note.read_text() == str(rows):
        return
    with table.open("w") as stream:
        stream.writelines(lines(rows))
    note.write_text(str(rows))


def prepare(folder: Path, kill_after: int | None = None) -> tuple[float, int]:
    """Run `ftsys prepare`, and kill it once `kill_after` rows are saved; returns seconds and largest resident bytes."""
    log = (folder / "prepare.log").open("w")
    words = [sys.executable, "-m", "ftsys", "prepare", str(folder / "run.toml")]
    started, process, largest = time.monotonic(), subprocess.Popen(words, stdout=log, stderr=log), 0
    while process.poll() is None:
        largest = max(largest, resident_bytes(process.pid))
        if kill_after is not None and saved(folder) >= kill_after:
            process.kill()
        time.sleep(0.2)
    if kill_after is None and process.returncode != 0:
        raise SystemExit((folder / "prepare.log").read_text())
    return time.monotonic() - started, largest


def resident_bytes(process: int) -> int:
    """Return the largest resident memory that Linux has noted of a process; 0 if it has just ended."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def cpu_seconds() -> float:
    """Return the CPU time of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def saved(folder: Path) -> int:
    """Return the rows that a stopped process has saved."""
    left = fullest((folder / "stores").glob("*.tmp-*"))
    return saved_rows(left) if left is not None else 0


def main() -> None:
    """Measure, print and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--kill-at", type=float, default=0.5, help="share of the rows that are saved before the kill")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    write_inputs(folder, options.rows)
    killed_after, killed_bytes = prepare(folder, int(options.rows * options.kill_at))
    rows_saved = saved(folder)
    cpu_before = cpu_seconds()
    taken, largest = prepare(folder)
    busy = (cpu_seconds() - cpu_before) / taken
    (store,) = (Store.open(path) for path in (folder / "stores").iterdir() if path.is_dir())
    if store.splits["train"].rows != options.rows:
        raise SystemExit(f"the store has {store.splits['train'].rows} rows, the file {options.rows}")
    measurements = {
        "until the kill": Measurement.of([killed_after], "s"),
        "after the kill": Measurement.of([taken], "s"),
        "rows after the kill": Measurement.of([(options.rows - rows_saved) / taken], "rows/s"),
        "cores busy after the kill": Measurement.of([busy], "cores"),
        "reading all lengths": Measurement.of([seconds(lambda: store.splits["train"].lengths)], "s"),
        "largest resident memory": Measurement.of([float(max(largest, killed_bytes))], "bytes"),
    }
    settings = {"rows": options.rows, "rows saved": rows_saved, "cores": len(os.sched_getaffinity(0))}
    path = write_record(options.output, "prepare-at-scale", measurements, {}, settings)
    for name, value in measurements.items():
        show(f"{name:<26}{value.median:>18,.1f} {value.unit}")
    show(f"record  {path}")


if __name__ == "__main__":
    main()
