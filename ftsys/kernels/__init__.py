"""Kernels on packed sequences: a slow reference, fast paths, and the one place that chooses between them."""
