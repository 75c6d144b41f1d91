"""CPU kernels in C++ for what torch does in many passes. A machine's own compiler makes them, once, in seconds."""
