"""Starts a trial's command so that it ends together with its sweep: `python -m ftsys.sweep.child PID COMMAND...`."""

import os
import signal
import sys

from ftsys.console.parent_exit import signal_at_parent_exit


def main(arguments: list[str]) -> None:
    """Become the command. Linux sends it SIGTERM when process `PID`, its parent, has died; it then saves and leaves."""
    parent, *command = arguments
    signal_at_parent_exit(signal.SIGTERM, int(parent))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
