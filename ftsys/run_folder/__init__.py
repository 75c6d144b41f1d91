"""Reads and writes the files of a run folder, without torch."""
