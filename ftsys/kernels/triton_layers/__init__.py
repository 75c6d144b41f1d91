"""Computes the parts of a layer around attention and matrix products in Triton: dropout, residual, norm, keys."""
