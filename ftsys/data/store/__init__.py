"""Writes and reads tokenized splits, on disk and in memory."""
