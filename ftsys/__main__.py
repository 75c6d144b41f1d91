"""`python -m ftsys`, which is what every launcher starts in each rank."""

import sys

from ftsys.cli import run

if __name__ == "__main__":
    sys.exit(run())
