"""Starts agents on this machine, over ssh or by srun."""
