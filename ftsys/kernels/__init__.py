"""Computes attention and dropout on packed sequences: a slow reference, fast kernels, and the choice between them."""
