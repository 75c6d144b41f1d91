"""Measures ftsys and its peers in the same run; part of the package, so that `ftsys bench NAME` works from a wheel."""
