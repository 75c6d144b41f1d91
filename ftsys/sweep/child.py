"""Starts a trial's command so that it ends together with its sweep: `python -m ftsys.sweep.child PID COMMAND...`."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Become the command. Linux sends it SIGTERM when process `PID`, its parent, has died; it then saves and leaves."""
    parent, *command = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        sys.exit(0)  # the parent died before the line above
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
