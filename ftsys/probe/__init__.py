"""Collects the facts of one node for `ftlaunch doctor`: `python -m ftsys.probe NUMBER`."""
