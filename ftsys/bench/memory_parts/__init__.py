"""Parts of `ftsys bench memory`."""
