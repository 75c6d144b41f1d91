"""Implements `ftsys watch`: follows runs by their files until all of them have ended."""

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ftsys.console.printer import show
from ftsys.errors import DONE, ConfigError
from ftsys.run_folder.discover import each_once, find_run_folders, is_run_folder
from ftsys.watch.snapshot import Snapshot, take_snapshot
from ftsys.watch.view import rich_table, summary, text_lines

DESCRIPTION = (
    "Follow runs by the files of their run folders, wherever they run: on this machine, or on a cluster with the same "
    "disk. For another machine: ssh -t HOST ftsys watch RUN_DIR. Ends when all runs have ended; Ctrl-C ends it too and "
    "touches no run."
)
SETTLE_SECONDS = 10.0
"""A folder of runs is watched this long after its last run has ended: the next one may be about to start."""

_SECONDS_ON_A_TERMINAL, _SECONDS_ELSEWHERE = 1.0, 10.0


def main(arguments: Sequence[str]) -> int:
    """Show the runs until they have ended, or once; returns the exit status. Raises ConfigError without a run."""
    options = _parser().parse_args(arguments)
    _check_found(options.runs)
    if options.once:
        show("\n".join(text_lines(snapshots(options.runs))))
        return DONE
    terminal = sys.stdout.isatty()
    seconds = options.every or (_SECONDS_ON_A_TERMINAL if terminal else _SECONDS_ELSEWHERE)
    try:
        (_follow_on_terminal if terminal else _follow_in_lines)(looks(options.runs, seconds))
    except KeyboardInterrupt:
        return DONE
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ftsys watch", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="run folders, or folders of run folders")
    parser.add_argument("--once", action="store_true", help="print the state of all runs once, as text")
    parser.add_argument("--every", type=_seconds, metavar="SECONDS", help="time between two looks")
    return parser


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.1 to 86400")
    return value


def _check_found(given: Sequence[Path]) -> None:
    """Raise ConfigError for each folder without a run; for HOST:PATH with the command that reads it."""
    messages = []
    for path in given:
        if not find_run_folders(path):
            host, _, there = str(path).partition(":")
            remote = f" On another machine: {_remote(host, there)}" if there and "/" not in host else ""
            messages.append(f"{str(path)!r} is not a run folder and holds none: name the output_dir of a run.{remote}")
    ConfigError.raise_if(messages)


def _remote(host: str, there: str) -> str:
    """Return the command that watches a folder of another machine. Two shells read it; the second one expands ~."""
    home = "~/" if there.startswith("~/") else ""
    return shlex.join(["ssh", "-t", host, "ftsys", "watch", home + shlex.quote(there.removeprefix(home))])


def snapshots(given: Sequence[Path]) -> list[Snapshot]:
    """Look at all runs once; runs that began since the last look are found too."""
    found: dict[str, list[Path]] = {}
    for path, folders in each_once({path: find_run_folders(path) for path in given}).items():
        for folder in folders:
            found.setdefault(str(folder.relative_to(path)) if folder != path else str(path), []).append(folder)
    return [
        take_snapshot(folder, name if len(folders) == 1 else str(folder))
        for name, folders in found.items()
        for folder in folders
    ]


def looks(
    given: Sequence[Path],
    seconds: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[list[Snapshot]]:
    """Yield snapshots every `seconds` until all runs have ended, for SETTLE_SECONDS if `given` are folders of runs."""
    settle = 0.0 if all(is_run_folder(path) for path in given) else SETTLE_SECONDS
    active_at = clock()
    while True:
        runs = snapshots(given)
        yield runs
        if not all(run.ended for run in runs):
            active_at = clock()
        elif clock() - active_at >= settle:
            return
        sleep(seconds)


def _follow_on_terminal(all_looks: Iterator[list[Snapshot]]) -> None:
    from rich.live import Live

    with Live(auto_refresh=False) as live:  # what is too high for the terminal is cut, so running runs come first
        for runs in all_looks:
            live.update(rich_table(sorted(runs, key=lambda run: run.ended)), refresh=True)


def _follow_in_lines(all_looks: Iterator[list[Snapshot]]) -> None:
    """Print the lines of those runs that have changed since they were last printed, and the totals at the end."""
    shown: set[str] = set()
    runs: list[Snapshot] = []
    for runs in all_looks:
        header, *lines = text_lines(runs)
        new = [line for line in lines if line not in shown]
        shown.update(new)
        if new:
            show("\n".join([header, *new]))
    show(summary(runs))
