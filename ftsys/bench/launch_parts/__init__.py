"""The parts of `ftsys bench launches`: a counter of operations, the paths that a GPU takes, the steps of each peer."""
