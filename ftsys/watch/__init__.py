"""Follows runs by the files of their run folders, on a terminal: `ftsys watch`."""
