"""Draws the figures of a report with matplotlib, without its global state."""
