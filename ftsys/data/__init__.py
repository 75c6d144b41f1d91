"""Turns text into packed batches: sources -> tokenize -> prepare -> store -> batching."""
