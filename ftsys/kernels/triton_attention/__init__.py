"""Computes attention on GPUs in Triton: variable lengths without padding, no scores in memory, keyed dropout.

The blockwise softmax and its backward pass follow FlashAttention-2 (Dao, 2023). The dropout masks are those of
`ftsys.kernels.dropout`, packed by a kernel of their own into one bit for each probability (`mask_bits.py`). One program
of the others computes one block of queries or keys of one sequence and one head. A block after the end of a shorter
sequence returns at once. `tiles.py` is the table of block sizes, `launch.py` has the function that the model calls.

Names in the kernels: M rows of a block of queries, N rows of a block of keys; `OWN` rows of the block that a program
computes, `VISITED` rows of each block that it reads for that. `bits` (T, H, words) int32 are the packed masks, `kept`
is the factor of kept probabilities, 1 / (1 - rate). `logs` (T, H) float32 is the binary logarithm of each row's sum of
exponentials. `reach` is the pattern's window in tokens.
"""
