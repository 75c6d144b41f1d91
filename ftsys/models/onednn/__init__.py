"""Computes linear layers on CPUs by oneDNN, torch's library of CPU kernels, with and without gradients."""
