"""Provides the Trainer's callbacks of a run."""
