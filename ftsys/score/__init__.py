"""Scores any file or rows in memory with a trained sequence classifier: packed, in constant memory, restartable."""
