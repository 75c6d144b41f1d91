"""Runs one short command on every node at once, on this machine, over ssh or through srun, and collects the output."""

import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from launcher.command_lines import missing_program
from launcher.timeouts import LAST_OUTPUT_SECONDS


@dataclass(frozen=True)
class CommandResult:
    """The output and end of a command. `status`: None if it was killed at the time limit; its output is kept."""

    output: str
    errors: str
    status: int | None


def run_together(commands: Sequence[Sequence[str]], text: str, seconds: float) -> list[CommandResult]:
    """Start all commands at once with `text` as their standard input; returns their results, in the same order.

    Kills what is left after `seconds`. Raises LaunchError for a program that is not on this machine.
    """
    deadline = time.monotonic() + seconds
    with ThreadPoolExecutor(len(commands)) as pool:
        return list(pool.map(lambda command: _run(command, text, deadline), commands))


def _last_output(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Return the output of a killed process; nothing if a process of its own, such as ssh's master, holds the pipes."""
    try:
        return process.communicate(timeout=LAST_OUTPUT_SECONDS)
    except subprocess.TimeoutExpired:
        return "", ""


def _run(command: Sequence[str], text: str, deadline: float) -> CommandResult:
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
        raise missing_program(command) from error
    try:
        output, errors = process.communicate(text, timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        return CommandResult(*_last_output(process), None)
    return CommandResult(output, errors, process.returncode)
