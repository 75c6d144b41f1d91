"""Finds problems that would make a run fail later, before anything is started: `ftlaunch doctor`.

`probes.py` starts a probe (`ftsys.probe`) on each node and collects facts. `checks.py` lists the checks: pure functions
from facts (`facts.py`) to findings (`findings.py`). Nothing is changed on any node.
"""
