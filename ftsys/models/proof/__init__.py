"""Asks the model itself, before a run, if it may be fed packed batches or without padding; else gives the reason."""
