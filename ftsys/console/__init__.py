"""Writes what people read, and starts and ends the two programs: output, closed pipes and Ctrl-C."""
