"""Trains, evaluates and saves on two ranks for hours, with faults at random moments: nothing may grow.

    python -m tests.end_to_end.soak --minutes 120 --seed 0 --record

Every few seconds the memory, open files, threads and CPU times of each rank are read, and the steps that it has taken.
Suspended ranks go on; killed and stopped runs are started again and resume. At the end each figure has a slope per hour
over the samples of all attempts, the start of an attempt left out.
"""

import argparse
import json
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from tests.end_to_end.attempts import RUN_FILE, Attempt, make_project, start
from tests.end_to_end.slopes import Slope, slope_of

RANKS = 2
SETTLED_SECONDS = 180.0
"""An attempt's samples count from then on: before, it imports, compiles, and meets new sizes of batches, for each of
which oneDNN keeps kernels."""
SAMPLE_SECONDS = 2.0
FAULTS = {"suspend a rank": 12, "stop the run": 1, "kill a rank": 1, "none": 10}
"""Fault -> how often it is drawn. Attempts end by one draw of twelve: what grows slowly needs long ones."""
LEAVE_SECONDS = 60.0
FIGURES = ("memory (MB)", "open files", "threads", "kernel share", "CPU of a step (ms)", "step (ms)")
"""A step's CPU time has its share of the evaluations and saves, and depends less on what else the machine does."""
TAIL_BYTES = 4096
ENDLESS = RUN_FILE.replace("max_steps = 12", "max_steps = 100000000").replace("eval_every = 4", "eval_every = 40")


@dataclass
class Sample:
    """Figures of a rank at a moment, in seconds since its attempt began."""

    attempt: int
    rank: int
    seconds: float
    figures: dict[str, float]


@dataclass
class Soak:
    """What happened."""

    keep: Path | None = None
    """Each sample is added to this file at once, a line of JSON."""
    samples: list[Sample] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    steps: int = 0

    def add(self, sample: Sample) -> None:
        """Keep a sample."""
        self.samples.append(sample)
        if self.keep:
            with self.keep.open("a") as file:
                file.write(f"{json.dumps(asdict(sample))}\n")

    def slopes(self) -> dict[str, Slope]:
        """Return the slope of each figure, per hour, over the samples of settled attempts."""
        kept = [sample for sample in self.samples if sample.seconds >= SETTLED_SECONDS]
        found = {}
        for name in FIGURES:
            groups: dict[tuple[int, int], list[tuple[float, float]]] = {}
            for sample in kept:
                if name in sample.figures:
                    point = (sample.seconds / 3600, sample.figures[name])
                    groups.setdefault((sample.attempt, sample.rank), []).append(point)
            found[name] = slope_of(list(groups.values()))
        return found


def soak(project: Path, seconds: float, seed: int, fault_seconds: float, keep: Path | None = None) -> Soak:
    """Train for `seconds`, with a fault every `fault_seconds` or so. Raises AssertionError for a rank that stays."""
    chance, found, end = random.Random(seed), Soak(keep), time.monotonic() + seconds
    while time.monotonic() < end:
        attempt = start(project, RANKS)
        _watch(attempt, chance, found, end, fault_seconds)
        found.attempts += 1
    return found


def _watch(attempt: Attempt, chance: random.Random, found: Soak, end: float, fault_seconds: float) -> None:
    """Sample until a fault has ended the attempt, or the time is over; then all ranks must be gone."""
    begun = time.monotonic()
    processes = [psutil.Process(process.pid) for process in attempt.ranks]
    before: dict[int, tuple[float, float, int]] = {}
    fault_at = begun + fault_seconds * chance.uniform(0.5, 1.5)
    first = _last_step(attempt.folder)
    while time.monotonic() < end:
        time.sleep(SAMPLE_SECONDS)
        step = _logged_step(attempt.folder)
        for rank, process in enumerate(processes):
            assert attempt.ranks[rank].exitcode is None, f"rank {rank} has left by itself\n{attempt.log()[-3000:]}"
            figures = _figures(process, rank, step, before)
            found.add(Sample(found.attempts, rank, time.monotonic() - begun, figures))
        if time.monotonic() >= fault_at:
            fault_at = time.monotonic() + fault_seconds * chance.uniform(0.5, 1.5)
            fault = chance.choices(list(FAULTS), list(FAULTS.values()))[0]
            found.faults[fault] += 1
            if _strike(fault, attempt, chance):
                break
    found.steps += _end(attempt) - first


def _figures(
    process: psutil.Process, rank: int, step: int, before: dict[int, tuple[float, float, int]]
) -> dict[str, float]:
    """Return the figures of a rank; those of its CPU time are of the time since the sample before."""
    with process.oneshot():
        times, memory = process.cpu_times(), anonymous_bytes(process.pid)
        figures = {"memory (MB)": memory / 1e6, "open files": process.num_fds(), "threads": process.num_threads()}
    user, system, step_before = before.get(rank, (times.user, times.system, step))
    before[rank] = (times.user, times.system, step)
    spent = times.user - user + times.system - system
    if spent > 0:
        figures["kernel share"] = (times.system - system) / spent
    if step > step_before:
        figures["CPU of a step (ms)"] = 1e3 * spent / (step - step_before)
    return figures


def anonymous_bytes(pid: int) -> int:
    """Return the resident memory of a process without its files.

    Memory that it shares with the server that it was forked from counts: the longer it runs, the more pages of that it
    writes to, which makes them its own and is no growth.
    """
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def _strike(fault: str, attempt: Attempt, chance: random.Random) -> bool:
    """Let the fault happen; returns True if it ends the attempt."""
    pids = [process.pid for process in attempt.ranks if process.pid is not None]
    victim = chance.choice(pids)
    if fault == "suspend a rank":
        os.kill(victim, signal.SIGSTOP)
        time.sleep(chance.uniform(0.5, 5.0))
        os.kill(victim, signal.SIGCONT)
    elif fault == "stop the run":
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
    elif fault == "kill a rank":
        os.kill(victim, signal.SIGKILL)
    return fault in ("stop the run", "kill a rank")


def _end(attempt: Attempt) -> int:
    """Ask all ranks to leave; returns the last step. Raises AssertionError for a rank that stays."""
    for process in attempt.ranks:
        process.terminate()
    statuses = attempt.statuses(LEAVE_SECONDS)
    assert None not in statuses, f"rank {statuses.index(None)} is still there\n{attempt.log()[-3000:]}"
    return _last_step(attempt.folder)


def _last_step(folder: Path) -> int:
    status = folder / "run/status.json"
    return int(json.loads(status.read_text())["step"]) if status.exists() else 0


def _logged_step(folder: Path) -> int:
    """Return the step of the last whole line in the log of metrics; 0 without one."""
    try:
        with (folder / "run/metrics.jsonl").open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = log.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return 0
    return int(json.loads(lines[-1])["step"]) if lines else 0


def step_samples(folder: Path) -> list[tuple[int, float, float]]:
    """Return (attempt, seconds since the attempt's first line, milliseconds of a step) from the log of metrics."""
    found: list[tuple[int, float, float]] = []
    last: dict[int, tuple[int, float]] = {}
    first: dict[int, float] = {}
    for text in (folder / "run/metrics.jsonl").read_text().splitlines():
        line = json.loads(text)
        if "loss" not in line or "split" in line:
            continue
        attempt, step, moment = line["attempt"], line["step"], line["time"]
        first.setdefault(attempt, moment)
        if attempt in last and step > last[attempt][0]:
            taken = (moment - last[attempt][1]) / (step - last[attempt][0])
            found.append((attempt, moment - first[attempt], 1e3 * taken))
        last[attempt] = (step, moment)
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Soak, and say what grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fault-seconds", type=float, default=60.0, help="mean time between faults (default 60)")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="add every sample to FILE, a line of JSON each")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args(words)
    from ftsys.bench.harness.record import DEFAULT_FOLDER, Measurement, write_record
    from ftsys.model_files.folder import resolve_model_folder

    with tempfile.TemporaryDirectory() as scratch:
        os.environ.setdefault("FTSYS_CACHE", f"{scratch}/cache")
        project = make_project(Path(scratch) / "project", resolve_model_folder("bundled"), ENDLESS)
        found = soak(project, 60 * options.minutes, options.seed, options.fault_seconds, options.keep)
        for attempt, seconds, taken in step_samples(project):
            found.add(Sample(attempt, -1, seconds, {"step (ms)": taken}))
    slopes = found.slopes()
    print(f"{found.attempts} attempts, {found.steps:,} steps, faults {dict(found.faults)}")
    for name, slope in slopes.items():
        change = f"{slope.per_hour:+,.4f} +- {slope.error:,.4f} an hour"
        print(f"{name}: mean {slope.mean:,.3f}, {change} ({slope.samples} samples)")
    if options.record:
        measured = {
            f"{name}: slope": Measurement(f"{name} an hour", slope.per_hour, slope.error, slope.per_hour, slope.samples)
            for name, slope in slopes.items()
        }
        settings = {"minutes": options.minutes, "seed": options.seed, "faults": dict(found.faults)}
        settings |= {"attempts": found.attempts, "steps": found.steps}
        settings |= {"means": {name: slope.mean for name, slope in slopes.items()}}
        print(write_record(DEFAULT_FOLDER, "soak", measured, {}, settings))


if __name__ == "__main__":
    main()
