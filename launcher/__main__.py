"""Runs `ftlaunch` as `python -m launcher`."""

import sys

from launcher.cli import run

sys.exit(run())
