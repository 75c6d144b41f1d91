"""Ends or saves a run after a signal, a dead rank, a hang or an out-of-memory error."""
