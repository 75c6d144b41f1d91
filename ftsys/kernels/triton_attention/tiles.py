"""Holds the block sizes of the attention kernels, by kernel, architecture and size of a head. Needs no Triton.

The sizes are derived from the machine code, which `ftsys bench kernels` counts without a GPU, by these rules in this
order: no register is spilled; the shared memory fits the GPU; no product is computed twice by the warps of a program;
two programs fit a multiprocessor; fewest instructions for each attention score. Found so, each for 16-bit numbers:

- With 64 rows and 8 warps, both warp groups of a Hopper GPU compute the same products, so 64 rows have 4 warps.
- The gradients of 64 keys by 64 queries spill up to 88 bytes on Ampere for heads of 32 and 64, so one side has 32 rows.
- With two stages, 64 keys by 32 queries of heads of 32 spill 24 bytes on Ampere with dropout, and heads of 256 spill 32
  bytes without it: both have one stage.
- 32 by 32 with 4 warps spills 8 bytes for heads of 96 on 8.6 and 8.9. This is the only exception to the first rule: 64
  by 32 with 8 warps spills nothing, but computes products 1.5 times.
- On Blackwell, 64 by 64 spills 8 to 24 bytes in some variants for heads of 32 and 64: there, 32 rows are visited.
- Blackwell's matrix units leave no registers for the gradients of heads of 128 with 4 warps (240 bytes), but do with 8.
- Heads of 256 spill 552 bytes on Hopper and 64 on Blackwell in the gradients of 64 keys, so a block has 32 keys. Their
  two programs do not fit a multiprocessor, and on Hopper two warp groups share 64 queries in the forward pass.

No rule was tested by time: no GPU was at hand.
"""

from dataclasses import dataclass

FORWARD, QUERY_GRADIENTS, KEY_GRADIENTS = "forward", "query_gradients", "key_gradients"
AMPERE, HOPPER, BLACKWELL = "ampere", "hopper", "blackwell"
SMALLEST = 16
"""Smallest head size in a product of a matrix unit: a smaller head is padded to it, others to a power of two."""
LARGEST = {2: 256, 4: 128}
"""Largest head size, by bytes per element."""
SHARED_BYTES = {80: 163 << 10, 86: 99 << 10, 89: 99 << 10, 90: 227 << 10, 100: 227 << 10, 120: 99 << 10}
"""Shared memory that a program may use, by compute capability (CUDA programming guide, technical specifications)."""


@dataclass(frozen=True)
class Tile:
    """Rows of a program's own block, rows of each block that it visits, warps of a program, stages of its pipeline."""

    own: int
    visited: int
    warps: int
    stages: int


_SQUARE = Tile(64, 64, 4, 2)
_OF_FLOAT32 = Tile(32, 32, 8, 1)
"""For float32, which has no matrix unit that keeps its precision."""
_TILES: dict[str, dict[str, dict[int, Tile]]] = {
    FORWARD: {
        AMPERE: {64: _SQUARE, 128: Tile(64, 32, 4, 2), 256: Tile(32, 64, 8, 1)},
        HOPPER: {128: _SQUARE, 256: Tile(64, 32, 8, 1)},
        BLACKWELL: {64: Tile(64, 32, 4, 2), 128: _SQUARE, 256: Tile(64, 32, 8, 1)},
    },
    QUERY_GRADIENTS: {
        AMPERE: {64: _SQUARE, 128: Tile(32, 64, 4, 2), 256: Tile(32, 64, 8, 1)},
        HOPPER: {128: _SQUARE, 256: Tile(32, 64, 8, 1)},
        BLACKWELL: {32: _SQUARE, 64: Tile(64, 32, 4, 2), 128: _SQUARE, 256: Tile(64, 32, 4, 1)},
    },
    KEY_GRADIENTS: {
        AMPERE: {32: Tile(64, 32, 4, 1), 64: Tile(32, 64, 4, 2), 128: Tile(32, 32, 4, 2), 256: Tile(32, 32, 8, 1)},
        HOPPER: {64: _SQUARE, 128: Tile(64, 32, 4, 2), 256: Tile(32, 32, 8, 2)},
        BLACKWELL: {32: Tile(64, 32, 4, 2), 64: _SQUARE, 128: Tile(64, 32, 8, 2), 256: Tile(32, 32, 8, 2)},
    },
}
"""Kernel -> architecture -> largest padded head size -> tile, for 16-bit numbers; sizes grow."""


def architecture(capability: int) -> str:
    """Return the matrix units that Triton uses for a compute capability, 90 for 9.0.

    A GPU of another kind, such as 12.0, gets the kernels of the oldest one: they need the least shared memory, and
    their instructions work on all.
    """
    return {90: HOPPER, 100: BLACKWELL, 103: BLACKWELL}.get(capability, AMPERE)


def padded_size(size: int) -> int:
    """Return the padded size of a head of `size` elements, 1 or more: a power of two."""
    return max(SMALLEST, 1 << (size - 1).bit_length())


def tile_for(kernel: str, capability: int, padded: int, element_bytes: int) -> Tile:
    """Return a kernel's tile on GPUs of this compute capability, for heads padded to `padded` elements."""
    if element_bytes > 2:
        return _OF_FLOAT32
    sizes = _TILES[kernel][architecture(capability)]
    return next(tile for largest, tile in sizes.items() if padded <= largest)
