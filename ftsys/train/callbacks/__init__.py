"""Callbacks of the Trainer, one a file."""
