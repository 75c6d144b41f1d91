"""Throughput benchmarks as functions, so that `ftsys bench NAME` works from a wheel; peers run beside."""
