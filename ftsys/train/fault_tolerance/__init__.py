"""Ends or saves a run when a signal, a dead rank, a hang or a lack of memory comes."""
