"""The parts of `ftsys bench kernels`: captures launches, reads machine code, and lists the kernels to compile."""
