"""SLURM: batch scripts, and the state of a job."""
