"""Finds the CPUs that this process may use, and sets OpenMP's threads by them. Imports no torch."""
