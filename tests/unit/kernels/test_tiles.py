"""Tests the table of block sizes of the GPU's attention kernels."""

import pytest

from ftsys.kernels.triton_attention.tiles import (
    AMPERE,
    BLACKWELL,
    FORWARD,
    HOPPER,
    KEY_GRADIENTS,
    LARGEST,
    QUERY_GRADIENTS,
    SHARED_BYTES,
    architecture,
    padded_size,
    tile_for,
)


@pytest.mark.parametrize(
    ("capability", "expected"),
    [(80, AMPERE), (86, AMPERE), (89, AMPERE), (90, HOPPER), (100, BLACKWELL), (103, BLACKWELL), (120, AMPERE)],
)
def test_each_gpu_has_the_kernels_of_its_matrix_units(capability: int, expected: str) -> None:
    assert architecture(capability) == expected


@pytest.mark.parametrize(("size", "padded"), [(1, 16), (12, 16), (16, 16), (17, 32), (96, 128), (128, 128), (256, 256)])
def test_heads_are_padded_to_powers_of_two(size: int, padded: int) -> None:
    assert padded_size(size) == padded


@pytest.mark.parametrize("capability", list(SHARED_BYTES))
@pytest.mark.parametrize("kernel", [FORWARD, QUERY_GRADIENTS, KEY_GRADIENTS])
def test_every_size_has_a_tile_of_whole_words_of_mask_bits(kernel: str, capability: int) -> None:
    for element_bytes, largest in LARGEST.items():
        for size in range(1, largest + 1):
            tile = tile_for(kernel, capability, padded_size(size), element_bytes)
            assert tile.own % 32 == tile.visited % 32 == 0
            assert tile.warps in (4, 8)
