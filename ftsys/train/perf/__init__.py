"""Measures and raises training speed: CUDA graphs, malloc settings, throughput, matrix-product rate."""
