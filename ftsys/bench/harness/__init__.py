"""Runs ours and its peers in interleaved rounds, and records the figures."""
