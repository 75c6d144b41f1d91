"""Starts and watches the ranks of one node: `python -m launcher.agent`."""
