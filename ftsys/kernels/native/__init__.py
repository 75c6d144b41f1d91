"""Provides CPU kernels in C++ for operations that torch does in several passes over memory.

The machine's own compiler builds them once, within seconds.
"""
