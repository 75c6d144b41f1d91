"""Running one short command on every node and collecting what it writes: here, over ssh, or through srun."""

import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ftsys.errors import LaunchError


@dataclass(frozen=True)
class Ended:
    """How a command ended. `status` is None where it was ended for want of time; its output until then is kept."""

    output: str
    errors: str
    status: int | None


def run_together(commands: Sequence[Sequence[str]], text: str, seconds: float) -> list[Ended]:
    """Start all commands at once with `text` as their standard input; how each ended, in their order.

    After `seconds` those that are left are killed. Raises LaunchError for a program that is not on this machine.
    """
    end = time.monotonic() + seconds
    with ThreadPoolExecutor(len(commands)) as pool:
        return list(pool.map(lambda command: _run(command, text, end), commands))


def _run(command: Sequence[str], text: str, end: float) -> Ended:
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )
    except FileNotFoundError as error:
        raise LaunchError(f"{command[0]!r} is not found on this machine: install it, or put it on PATH.") from error
    try:
        output, errors = process.communicate(text, timeout=max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
        return Ended(output, errors, None)
    return Ended(output, errors, process.returncode)
