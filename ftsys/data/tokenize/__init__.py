"""Tokenizes rows in parallel."""
