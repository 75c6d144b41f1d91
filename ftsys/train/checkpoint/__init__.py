"""Writes, finds and restores checkpoints that do not depend on the number of ranks."""
