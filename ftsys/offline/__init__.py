"""Fills folders and caches for machines without a network."""
