"""Runs what is measured and its peers in turns, and records the figures."""
