"""Writes SLURM batch scripts, asks SLURM for the state of jobs, and answers the scripts inside a job."""
