"""Selects the machines of a run and starts agents there: on this machine, over ssh, or by srun."""
