"""Runs `ftsys table`: models x tasks x seeds, each a run folder, and makes one table of their results."""
