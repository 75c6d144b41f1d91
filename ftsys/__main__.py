"""Runs `python -m ftsys`, the command that every launcher starts on each rank."""

import sys

from ftsys.cli import run

if __name__ == "__main__":
    sys.exit(run())
