"""Reads the finished cells of a table, and writes means, comparisons and submissions."""
