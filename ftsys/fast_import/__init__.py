"""Shortens the imports of a process that is a rank."""
