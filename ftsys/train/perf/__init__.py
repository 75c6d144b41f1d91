"""Speed: CUDA graphs, freed memory, throughput and the matrix-product rate."""
