"""Kills a rank with SIGKILL in every phase of a run, so many times each: what remains must be as if nothing had been.

    python -m tests.end_to_end.kill_phases 100 --at-once 3 --record

A run loses a rank in each phase once, in an order of chance, and is then finished: its weights are the undisturbed
run's, bit for bit. Where ranks know each other, the others leave by themselves and status.json names the dead one.
Before that only a launcher can name it: for `start-up under ftlaunch`, `ftlaunch run` is the launcher.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ftsys.run_folder.attempts import highest_attempt
from tests.end_to_end.attempts import LIFE_SECONDS, RUN_FILE, Attempt, copy_project, finish, make_project, start
from tests.end_to_end.commands import environment, ranks_of
from tests.end_to_end.phases import ALONE, LINGER_SECONDS, TOGETHER, forget_reached, linger, wait_until_reached

RANKS = 2
METRICS_LOG = "run/metrics.jsonl"
LEAVE_SECONDS = 20.0
"""All ranks are gone so many seconds after the death."""
LAUNCHER_SECONDS = 2.0
"""Ranks that do not know each other yet are sent TERM after so long, as every launcher does."""
LAUNCHED = "start-up under ftlaunch"
KILLS_A_RUN = 10
LAST = ("finish", "model")
"""Phases after the last step."""
LONGER = RUN_FILE.replace("max_steps = 12", "max_steps = 20")
"""Enough steps for an attempt in each phase: none goes on for more than four."""


@dataclass
class Tally:
    """What happened, by phase."""

    kills: Counter[str] = field(default_factory=Counter)
    slowest_leave_s: dict[str, float] = field(default_factory=dict)

    def add(self, phase: str, seconds: float) -> None:
        """Count a kill after which the ranks were gone within so many seconds."""
        self.kills[phase] += 1
        self.slowest_leave_s[phase] = max(seconds, self.slowest_leave_s.get(phase, 0.0))

    def update(self, other: "Tally") -> None:
        """Add other kills."""
        self.kills.update(other.kills)
        for phase, seconds in other.slowest_leave_s.items():
            self.slowest_leave_s[phase] = max(seconds, self.slowest_leave_s.get(phase, 0.0))


def kill_in_phases(runs: int, project: Path, seed: int = 0, words: Sequence[str] = ()) -> Tally:
    """Kill a rank in each phase of `runs` runs. Raises AssertionError for a run that ends otherwise."""
    finish(copy_project(project, "first"), RANKS, words)  # prepares the store
    expected = finish(copy_project(project, "whole"), RANKS, words)
    chance, tally = random.Random(seed), Tally()
    for run in range(runs):
        folder = copy_project(project, f"{run}")
        early = [phase for phase in (*ALONE, *TOGETHER) if phase not in LAST]
        chance.shuffle(early)
        for phase in (*early, *LAST):
            tally.add(phase, _kill_in(phase, folder, words, chance))
        assert finish(folder, RANKS, words) == expected, f"run {run} of seed {seed}: other weights; see {folder}"
    return tally


def _kill_in(phase: str, folder: Path, words: Sequence[str], chance: random.Random) -> float:
    """Start an attempt and kill one of its ranks in `phase`; returns the seconds until all were gone."""
    forget_reached(folder)
    attempt = start(folder, RANKS, words, prepare=(linger, phase))
    victim = 0 if phase == "model" else chance.randrange(RANKS)
    wait_until_reached(attempt, victim)
    time.sleep(LINGER_SECONDS * chance.uniform(0.5, 1.0 if phase in LAST else 1.1))  # a few while it works
    process, killed_at = attempt.ranks[victim], time.monotonic()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    if phase in ALONE:
        attempt.ranks[1 - victim].join(LAUNCHER_SECONDS)
        attempt.ranks[1 - victim].terminate()
    statuses = attempt.statuses(LEAVE_SECONDS)
    taken = time.monotonic() - killed_at
    assert None not in statuses, f"rank {statuses.index(None)} is still there\n{attempt.log()}"
    assert statuses[victim] == -signal.SIGKILL, f"{phase}: the end came first: {statuses}\n{attempt.log()}"
    if phase in TOGETHER:
        _check_named(attempt, victim, statuses[1 - victim])
    elif victim != 0:
        assert "another rank died in its start-up" in attempt.log(), attempt.log()
    return taken


def _check_named(attempt: Attempt, victim: int, other: int | None) -> None:
    """Raise AssertionError unless the other rank has failed and status.json names the dead one."""
    status = json.loads((attempt.folder / "run/status.json").read_text())
    assert (other, status["state"], status["exit"]) == (1, "failed", 1), f"{other}, {status}\n{attempt.log()}"
    assert f"rank {victim} died" in status["reason"], f"rank {victim} was killed: {status}"


def kill_launched(kills: int, project: Path, seed: int = 0) -> Tally:
    """Kill ranks that `ftlaunch run` starts, in their start-up. Raises AssertionError for one that is not named."""
    expected = finish(copy_project(project, "plain"), RANKS)
    chance, tally = random.Random(seed), Tally()
    starting_s = _start_up(copy_project(project, "undisturbed"))
    while tally.kills[LAUNCHED] < kills:
        folder = copy_project(project, f"launched-{tally.kills.total()}")
        for _ in range(KILLS_A_RUN):
            killed = _kill_launched(folder, chance, starting_s)
            if killed is None:
                break
            tally.add(*killed)
        assert finish(folder, RANKS) == expected, f"other weights; see {folder}"
    return tally


def _launch(folder: Path) -> "subprocess.Popen[str]":
    """Start `ftlaunch run`, and wait until all ranks have processes."""
    command = [sys.executable, "-m", "launcher", "run", "run.toml", "--gpus-per-node", str(RANKS), "--cpu"]
    process = subprocess.Popen(command, cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True)
    while len(ranks_of(folder)) < RANKS:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    return process


def _start_up(folder: Path) -> float:
    """Return the seconds from the ranks' processes to the first step of a run, and let it end."""
    process, begin = _launch(folder), time.monotonic()
    while not (folder / METRICS_LOG).exists() and process.poll() is None:
        time.sleep(0.01)
    taken = time.monotonic() - begin
    assert process.wait(LIFE_SECONDS) == 0
    return taken


def _kill_launched(folder: Path, chance: random.Random, starting_s: float) -> tuple[str, float] | None:
    """Launch and kill one rank; returns its phase, and the seconds until `ftlaunch` and all ranks were gone.

    Returns None where the run's end came first.
    """
    log, attempt = folder / METRICS_LOG, highest_attempt(folder / "run")
    before = log.stat().st_size if log.exists() else 0
    process, victim = _launch(folder), chance.randrange(RANKS)
    time.sleep(chance.uniform(0.0, starting_s))
    begun = log.exists() and log.stat().st_size > before
    ranks = ranks_of(folder)
    if victim not in ranks:
        _, said = process.communicate(timeout=LIFE_SECONDS)
        assert process.returncode == 0, said
        return None
    os.kill(ranks[victim], signal.SIGKILL)
    killed_at = time.monotonic()
    _, said = process.communicate(timeout=LEAVE_SECONDS)
    taken = time.monotonic() - killed_at
    assert ranks_of(folder) == {}
    assert process.returncode == 1, said
    assert f"error: rank {victim} on " in said.splitlines()[-1], said
    if highest_attempt(folder / "run") > attempt:  # else it died before it claimed the folder, which has no status
        assert json.loads((folder / "run/status.json").read_text())["exit"] == 1
    return ("training under ftlaunch" if begun else LAUNCHED), taken


def shared_out(kill: Callable[[int, Path, int], Tally], count: int, at_once: int, project: Path, seed: int) -> Tally:
    """Call `kill` for equal parts of `count`, all at once, each with a project and a seed of its own."""
    shares = [count // at_once + (part < count % at_once) for part in range(at_once)]
    projects = [copy_project(project, f"{kill.__name__}-{part}") for part in range(at_once)]
    tally = Tally()
    with ThreadPoolExecutor(at_once) as pool:
        for found in pool.map(kill, shares, projects, range(seed, seed + at_once)):
            tally.update(found)
    return tally


def main() -> None:
    """Kill, and say what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, help="kills in each phase")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=1, help="runs that are killed side by side")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    from ftsys.bench.harness.record import DEFAULT_FOLDER, Measurement, write_record
    from ftsys.model_files.folder import resolve_model_folder

    with tempfile.TemporaryDirectory() as scratch:
        os.environ.setdefault("FTSYS_CACHE", f"{scratch}/cache")
        project = make_project(Path(scratch) / "project", resolve_model_folder("bundled"), LONGER)
        tally = Tally()
        for kill in (kill_launched, kill_in_phases):
            tally.update(shared_out(kill, options.count, options.at_once, project, options.seed))
            for phase, kills in tally.kills.items():
                print(f"{phase}: {kills} kills, all ranks gone within {tally.slowest_leave_s[phase]:.1f} s", flush=True)
    if options.record:
        measured = {
            f"{phase}: slowest leave": Measurement.of([seconds], "s", higher_is_better=False)
            for phase, seconds in tally.slowest_leave_s.items()
        }
        settings = {"seed": options.seed, "at once": options.at_once, "kills": dict(tally.kills)}
        print(write_record(DEFAULT_FOLDER, "kill-phases", measured, {}, settings))


if __name__ == "__main__":
    main()
