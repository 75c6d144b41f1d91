"""Kills random ranks with SIGKILL: every run must end with the uninterrupted run's weights, bit for bit.

    python -m tests.end_to_end.kill_ranks 200 --record

Each attempt of two ranks loses a random rank at a random moment, saves included, until one attempt gets through; then
the next run begins. `--record` writes the counts to benchmarks/results/.
"""

import argparse
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.end_to_end.attempts import copy_project, finish, make_project, start

RANKS = 2
LEAVE_SECONDS, LAUNCHER_SECONDS = 90.0, 5.0
"""The other rank leaves within so many seconds of the death, on a busy machine too (the record has the longest time);
after so many it is sent TERM, as every launcher does.

Ranks that wait for the process group to be made do not know each other yet: there, only the launcher can tell.
"""


@dataclass
class Tally:
    """What happened."""

    kills: int = 0
    runs: int = 0
    slowest_leave_s: float = 0.0
    left_unasked: int = 0
    phases: Counter[str] = field(default_factory=Counter)


def measure_whole(project: Path, words: Sequence[str]) -> tuple[bytes, float]:
    """The uninterrupted run's weights, and how many seconds an attempt takes."""
    finish(copy_project(project, "first"), RANKS, words)  # prepares the store
    folder, begin = copy_project(project, "whole"), time.monotonic()
    return finish(folder, RANKS, words), time.monotonic() - begin


def kill_until(count: int, project: Path, seed: int = 0, words: Sequence[str] = ()) -> Tally:
    """Kill `count` ranks in as many runs as that takes; `words` are the command's. Raises AssertionError where a run's
    end is another."""
    expected, life_seconds = measure_whole(project, words)
    chance, tally = random.Random(seed), Tally()
    while tally.kills < count:
        folder = copy_project(project, f"{tally.runs}")
        while tally.kills < count and _one_life_killed(folder, words, chance, life_seconds, tally):
            pass
        assert finish(folder, RANKS, words) == expected, f"run {tally.runs} of seed {seed}: other weights; see {folder}"
        tally.runs += 1
    return tally


def _one_life_killed(
    folder: Path, words: Sequence[str], chance: random.Random, life_seconds: float, tally: Tally
) -> bool:
    """Start an attempt and kill one of its ranks at a random moment; False when it was through before that."""
    attempt, victim = start(folder, RANKS, words), chance.randrange(RANKS)
    process = attempt.ranks[victim]
    process.join(chance.uniform(0.0, life_seconds))
    if process.exitcode is not None:
        statuses = attempt.statuses()
        assert statuses == [0] * RANKS, f"{statuses}\n{attempt.log()}"
        return False
    assert process.pid is not None
    phase = _phase(folder)
    os.kill(process.pid, signal.SIGKILL)
    killed_at, other = time.monotonic(), attempt.ranks[1 - victim]
    other.join(LAUNCHER_SECONDS)
    tally.left_unasked += other.exitcode is not None
    other.terminate()
    statuses = attempt.statuses(LEAVE_SECONDS - LAUNCHER_SECONDS)
    assert None not in statuses, f"rank {statuses.index(None)} is still there after {LEAVE_SECONDS} s\n{attempt.log()}"
    tally.kills += 1
    tally.phases[phase] += 1
    tally.slowest_leave_s = max(tally.slowest_leave_s, time.monotonic() - killed_at)
    return True


def _phase(folder: Path) -> str:
    """Where the run is, as far as its folder tells."""
    checkpoints = folder / "run/checkpoints"
    if not (folder / "run/status.json").exists():
        return "start"
    if any(".tmp-" in path.name for path in checkpoints.glob("*")):
        return "save"
    return "train" if any(checkpoints.glob("*")) else "before the first checkpoint"


def main() -> None:
    """Kill, and say what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--zero-stage", help="train with DeepSpeed at this stage, in place of DDP")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    from ftsys.bench.harness.record import DEFAULT_FOLDER, Measurement, write_record
    from ftsys.model_files.folder import resolve_model_folder

    with tempfile.TemporaryDirectory() as scratch:
        os.environ.setdefault("FTSYS_CACHE", f"{scratch}/cache")
        project = make_project(Path(scratch) / "project", resolve_model_folder("bundled"))
        words = ["--engine.zero_stage", options.zero_stage] if options.zero_stage else []
        tally = kill_until(options.count, project, options.seed, words)
    print(f"{tally.kills} kills in {tally.runs} runs, every one ended with the same weights; {dict(tally.phases)}")
    print(f"the other rank was gone within {tally.slowest_leave_s:.1f} s, {tally.left_unasked} times by itself")
    if options.record:
        measured = {"slowest leave": Measurement.of([tally.slowest_leave_s], "s", higher_is_better=False)}
        settings = {"kills": tally.kills, "runs": tally.runs, "seed": options.seed, "phases": dict(tally.phases)}
        settings["left by themselves"] = tally.left_unasked
        name = f"kill-ranks-zero{options.zero_stage}" if options.zero_stage else "kill-ranks"
        print(write_record(DEFAULT_FOLDER, name, measured, {}, settings))


if __name__ == "__main__":
    main()
