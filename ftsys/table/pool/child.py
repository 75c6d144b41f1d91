"""Trains one cell in a process of its own, which saves and ends when the process that started it ends."""

import signal
import sys

from ftsys.cli import run
from ftsys.console.parent_exit import signal_at_parent_exit


def main(parent: str, run_file: str) -> int:
    """Run `ftsys train RUN_FILE`; returns its exit status. `parent`: id of the process that started this one."""
    signal_at_parent_exit(signal.SIGTERM, int(parent))
    sys.argv = ["ftsys", "train", run_file]
    return run()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
