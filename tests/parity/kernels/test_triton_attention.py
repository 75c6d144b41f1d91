"""Tests the Triton attention against the slow float64 reference, on a GPU or else with Triton's interpreter."""

import os

import pytest
import torch

from ftsys.kernels.attention import reference_attention
from ftsys.kernels.dropout import NO_DROPOUT, AttentionDropout, kept_mask
from ftsys.kernels.layout import PackedLayout
from ftsys.kernels.pattern import PLAIN, Pattern

pytest.importorskip("triton", reason="Triton is not installed (make test runs this file with it)")
if not (torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET")):
    pytest.skip("no GPU: make test runs this file in Triton's interpreter", allow_module_level=True)

from ftsys.kernels.triton_attention import launch
from ftsys.kernels.triton_attention.launch import flash_attention, takes
from ftsys.kernels.triton_attention.mask_bits import mask_bits

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HALF = 2e-3
"""Tolerance of float16, relative to the norm."""
PATTERNS = [PLAIN, Pattern(causal=True), Pattern(window=20), Pattern(causal=True, window=20)]
TILES = [(80, 32), (80, 64), (80, 96), (80, 256), (90, 64), (90, 128), (90, 256), (100, 128), (100, 256)]
"""Compute capabilities and head sizes with all tiles of the table."""


@pytest.mark.parametrize("size", [12, 16, 32, 72])
@pytest.mark.parametrize("rate", [0.0, 0.1])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float16, HALF)])
def test_it_equals_the_reference_with_the_same_masks(
    dtype: torch.dtype, tolerance: float, rate: float, size: int
) -> None:
    compare(dtype, tolerance, rate, size, heads=2, groups=2, pattern=PLAIN)


@pytest.mark.parametrize(("capability", "size"), TILES)
def test_every_tile_equals_the_reference(monkeypatch: pytest.MonkeyPatch, capability: int, size: int) -> None:
    monkeypatch.setattr(launch, "capability_of", lambda device: capability)
    compare(torch.float16, HALF, 0.1, size, heads=1, groups=1, pattern=PLAIN)


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: f"causal={pattern.causal}, window={pattern.window}")
@pytest.mark.parametrize(("heads", "groups"), [(2, 2), (4, 2)])
def test_masks_and_shared_keys_equal_the_reference(heads: int, groups: int, pattern: Pattern) -> None:
    compare(torch.float32, 2e-6, 0.1, 16, heads, groups, pattern)


@pytest.mark.parametrize("pattern", PATTERNS[1:], ids=lambda pattern: f"{pattern.causal}, {pattern.window}")
@pytest.mark.parametrize("size", [32, 64])
def test_patterns_with_blocks_that_are_not_square(pattern: Pattern, size: int) -> None:
    """On Ampere a block of 64 keys visits 32 queries at size 32, and one of 32 visits 64 at size 64."""
    compare(torch.float16, HALF, 0.1, size, heads=2, groups=1, pattern=pattern, lengths=[3, 70, 130])


def test_a_batch_without_sequences_and_sequences_without_tokens() -> None:
    nothing = torch.empty(0, 2, 16, device=DEVICE, requires_grad=True)
    no_keys = AttentionDropout(0.1, 1, torch.empty(0, dtype=torch.int64, device=DEVICE))
    bounds = torch.zeros(1, dtype=torch.int32, device=DEVICE)
    output = flash_attention(nothing, nothing, nothing, PackedLayout(bounds, 0), 0.25, no_keys)
    output.sum().backward()
    assert output.shape == nothing.shape == nothing.grad.shape
    compare(torch.float32, 2e-6, 0.1, 16, heads=2, groups=2, pattern=PLAIN, lengths=[0, 5, 0, 9])


def test_everything_is_dropped_at_rate_1() -> None:
    states = torch.ones(4, 1, 16, device=DEVICE)
    bounds, keys = torch.tensor([0, 4], dtype=torch.int32, device=DEVICE), torch.arange(4, device=DEVICE)
    assert not flash_attention(
        states, states, states, PackedLayout(bounds, 4), 1.0, AttentionDropout(1.0, 1, keys)
    ).any()


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5])
def test_the_packed_bits_are_the_masks_of_a_cpu(rate: float) -> None:
    lengths, heads = [1, 33, 64, 200], 3
    bounds = torch.tensor([0, *lengths]).cumsum(0).int().to(DEVICE)
    keys = torch.randint(-(2**62), 2**62, (sum(lengths),), device=DEVICE)
    dropout = AttentionDropout(rate, 7, keys)
    bits_THW = mask_bits(dropout, PackedLayout(bounds, max(lengths)), heads)
    starts = dropout.windows_TH(heads)
    if bits_THW is None or starts is None:
        assert rate == 0
        return
    assert bits_THW.shape == (sum(lengths), heads, 7)
    kept_THL = kept_mask((starts[0].cpu(), starts[1].cpu()), max(lengths), rate)
    unpacked_THL = (bits_THW.cpu().repeat_interleave(32, 2) >> torch.arange(7 * 32) % 32 & 1).bool()
    for start, length in zip(bounds.tolist(), lengths, strict=False):
        rows = slice(start, start + length)
        assert torch.equal(unpacked_THL[rows, :, :length], kept_THL[rows, :, :length])


def test_one_sequence_of_8192_tokens_with_a_window() -> None:
    """The reference computes only the band of 31 keys before and after each query: (8192, 63) scores."""
    tokens, reach, size = 8192, 32, 16
    torch.manual_seed(0)
    given = [torch.randn(tokens, 1, size, device=DEVICE).half() for _ in range(4)]
    dropout = AttentionDropout(0.1, 7, torch.randint(-(2**62), 2**62, (tokens,), device=DEVICE))
    layout = PackedLayout(torch.tensor([0, tokens], dtype=torch.int32, device=DEVICE), tokens)
    query, key, value = (states.clone().requires_grad_() for states in given[:3])
    output = flash_attention(query, key, value, layout, 0.25, dropout, Pattern(window=reach))
    found = [output, *torch.autograd.grad(output, [query, key, value], given[3])]
    query, key, value = (states.double().requires_grad_() for states in given[:3])
    exact = banded(query[:, 0], key[:, 0], value[:, 0], reach, dropout)[:, None]
    wanted = [exact, *torch.autograd.grad(exact, [query, key, value], given[3].double())]
    for actual, expected in zip(found, wanted, strict=True):
        assert (actual.detach().double() - expected).norm() < HALF * expected.norm()


def banded(
    query_TK: torch.Tensor, key_TK: torch.Tensor, value_TK: torch.Tensor, reach: int, dropout: AttentionDropout
) -> torch.Tensor:
    tokens = len(query_TK)
    seen_TB = torch.arange(tokens, device=DEVICE)[:, None] + torch.arange(1 - reach, reach, device=DEVICE)
    inside_TB = (seen_TB >= 0) & (seen_TB < tokens)
    seen_TB = seen_TB.clamp(0, tokens - 1)
    scores_TB = (query_TK[:, None] * key_TK[seen_TB]).sum(2) * 0.25
    weights_TB = scores_TB.masked_fill(~inside_TB, -torch.inf).softmax(1)
    starts = dropout.windows_TH(1)
    assert starts is not None
    kept_TB = kept_mask((starts[0][:, 0], starts[1][:, 0]), tokens, dropout.rate).gather(1, seen_TB)
    return ((weights_TB * kept_TB / (1 - dropout.rate))[..., None] * value_TK[seen_TB]).sum(1)


def test_a_sequence_whose_places_need_more_than_32_bits_is_refused() -> None:
    states = torch.empty(1, 2, 64, device=DEVICE)
    layout = PackedLayout(torch.tensor([0, 1], dtype=torch.int32, device=DEVICE), 1 << 24)
    with pytest.raises(ValueError, match="a sequence of 16777216 tokens has 2147483648 elements"):
        flash_attention(states, states, states, layout, 1.0, NO_DROPOUT)


def test_heads_above_the_largest_size_are_not_taken() -> None:
    wide, wider = torch.empty(1, 1, 256), torch.empty(1, 1, 257, dtype=torch.float16)
    assert takes(wide.half(), wide.half(), wide.half())
    assert not takes(wide, wide, wide)
    assert not takes(wider, wider, wider)


def compare(
    dtype: torch.dtype,
    tolerance: float,
    rate: float,
    size: int,
    heads: int,
    groups: int,
    pattern: Pattern,
    lengths: list[int] | None = None,
) -> None:
    torch.manual_seed(0)
    lengths = lengths or [1, 70, 64, 5]
    bounds, tokens = torch.tensor([0, *lengths]).cumsum(0).int().to(DEVICE), sum(lengths)
    keys = torch.randint(-(2**62), 2**62, (tokens,), device=DEVICE)
    dropout = AttentionDropout(rate, 7, keys if rate else None)
    shapes = [(tokens, count, size) for count in (heads, groups, groups, heads)]
    given = [torch.randn(shape, device=DEVICE).to(dtype) for shape in shapes]
    query, key, value = (tensor.clone().requires_grad_() for tensor in given[:3])
    assert takes(query, key, value)
    layout, scale = PackedLayout(bounds, max(lengths)), min(0.5, 2.0 * size**-0.5)
    output = flash_attention(query, key, value, layout, scale, dropout, pattern)
    found = [output, *torch.autograd.grad(output, [query, key, value], given[3])]
    query, key, value = (tensor.double().requires_grad_() for tensor in given[:3])
    exact = reference_attention(query, key, value, layout, scale, dropout, pattern)
    wanted = [exact, *torch.autograd.grad(exact, [query, key, value], given[3].double())]
    for actual, expected in zip(found, wanted, strict=True):
        assert (actual.detach().double() - expected).norm() < tolerance * expected.norm()


@pytest.mark.parametrize("groups", [2, 1])
def test_states_that_are_columns_of_one_matrix_are_read_there(groups: int) -> None:
    torch.manual_seed(0)
    bounds, keys = torch.tensor([0, 3, 12], dtype=torch.int32, device=DEVICE), torch.arange(12, device=DEVICE)
    widths, layout, dropout = [32, 16 * groups, 16 * groups], PackedLayout(bounds, 9), AttentionDropout(0.1, 3, keys)
    matrix = torch.randn(12, sum(widths), device=DEVICE, requires_grad=True)
    columns = [part.unflatten(1, (-1, 16)) for part in matrix.split(widths, 1)]
    upstream, found = torch.randn(12, 2, 16, device=DEVICE), []
    for states in (columns, [part.contiguous() for part in columns]):
        output = flash_attention(states[0], states[1], states[2], layout, 0.25, dropout)
        gradients = torch.autograd.grad(output, states, upstream, retain_graph=True)
        found.append([output, *gradients])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    storages = {gradient.untyped_storage().data_ptr() for gradient in found[0][1:]}
    assert len(storages) == 1  # so the backward pass of a joint product copies nothing
