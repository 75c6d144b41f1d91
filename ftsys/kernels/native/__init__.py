"""CPU kernels in C++ for what torch does in many passes. Compiled once for a machine, in seconds, by its own compiler."""
