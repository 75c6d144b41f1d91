"""`python -m ftsys.probe`: collects the facts of one node for `ftlaunch doctor`."""
