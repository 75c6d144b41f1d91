"""Starts a probe on each node, through the same ways as `ftlaunch run`, and collects the facts."""

import json
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftsys.config import plain_tree
from launcher.command_lines import remote_line, srun_words, ssh_words
from launcher.doctor.facts import Answer, Asked, Examined
from launcher.doctor.run_on_nodes import Ended, run_together
from launcher.timeouts import PROBE_LEAST_SECONDS, PROBE_START_SECONDS

_ERRORS_KEPT = 2_000


def examine(asked: Asked, environ: Mapping[str, str]) -> Examined:
    """Ask all nodes at once. `environ`: what of the environment the nodes are given.

    Raises LaunchError where ssh or srun is not on this machine.
    """
    token = uuid.uuid4().hex[:12]
    commands = _commands(asked, environ)
    ended = run_together([words for words, _ in commands], _question(asked, token, environ), asked.seconds)
    _sweep(asked, token)
    answers: dict[int, Answer] = {}
    for (_, seats), end in zip(commands, ended, strict=True):
        answers |= _answers(seats, end)
    return Examined(asked, answers)


def _question(asked: Asked, token: str, environ: Mapping[str, str]) -> str:
    fields: dict[str, Any] = {
        "hosts": asked.hosts,
        "master": asked.nodes[0] if len(asked.nodes) > 1 else "127.0.0.1",
        "port": asked.port,
        "seconds": max(PROBE_LEAST_SECONDS, asked.seconds - PROBE_START_SECONDS),
        "token": token,
        "run": plain_tree(asked.run),
        "packages": list(asked.requirements),
        "cpu": asked.cpu,
        "environ": dict(environ),
    }
    return json.dumps(fields) + "\n"


def _commands(asked: Asked, environ: Mapping[str, str]) -> list[tuple[list[str], tuple[int, ...]]]:
    """(words, the seats that they start probes for)."""
    seats = tuple(range(len(asked.hosts)))
    if asked.backend == "slurm":
        # A probe that fails does not end the others.
        return [([*srun_words(len(asked.nodes)), "--kill-on-bad-exit=0", *_on_node()], seats)]
    if asked.backend == "hostfile":
        folder = str(Path.cwd())
        lines = [remote_line(_on_node(seat), folder, environ) for seat in seats]
        return [([*ssh_words(asked.hosts[seat]), lines[seat]], (seat,)) for seat in seats]
    return [(_on_node(seat), (seat,)) for seat in seats]


def _on_node(seat: int | None = None) -> list[str]:
    return [sys.executable, "-m", "launcher.doctor.probe_entry", *([] if seat is None else [str(seat)])]


def _answers(seats: Sequence[int], end: Ended) -> dict[int, Answer]:
    """What each seat told; lines of anything else, such as a far shell's greeting, are passed over."""
    groups: dict[int, dict[str, Any]] = {seat: {} for seat in seats}
    for line in end.output.splitlines():
        if line.startswith('{"probe": '):
            told = json.loads(line)
            groups[told["probe"]][told["group"]] = told["facts"]
    return {seat: Answer(found, end.status, end.errors[-_ERRORS_KEPT:]) for seat, found in groups.items()}


def _sweep(asked: Asked, token: str) -> None:
    """Remove what a probe that was killed has left in the run folder or above it, as far as this machine sees it."""
    folder = Path(asked.run.output_dir).expanduser().absolute()
    for place in (folder, *folder.parents):
        for left in place.glob(f".ftsys-doctor-{token}-*"):
            left.unlink(missing_ok=True)
