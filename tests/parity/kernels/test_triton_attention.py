"""Tests the Triton attention against the slow float64 reference, on a GPU or else with Triton's interpreter."""

import pytest
import torch

from ftsys.kernels.attention import reference_attention
from ftsys.kernels.dropout import AttentionDropout
from ftsys.kernels.layout import PackedLayout
from ftsys.kernels.pattern import PLAIN, Pattern

pytest.importorskip("triton", reason="Triton is not installed (make test runs this file with it)")

from ftsys.kernels.triton_attention import flash_attention, takes

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


PATTERNS = [PLAIN, Pattern(causal=True), Pattern(window=20), Pattern(causal=True, window=20)]


@pytest.mark.parametrize("size", [12, 16, 32])
@pytest.mark.parametrize("rate", [0.0, 0.1])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float16, 2e-3)])
def test_it_equals_the_reference_with_the_same_masks(
    dtype: torch.dtype, tolerance: float, rate: float, size: int
) -> None:
    compare(dtype, tolerance, rate, size, heads=2, groups=2, pattern=PLAIN)


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: f"causal={pattern.causal}, window={pattern.window}")
@pytest.mark.parametrize(("heads", "groups"), [(2, 2), (4, 2)])
def test_masks_and_shared_keys_equal_the_reference(heads: int, groups: int, pattern: Pattern) -> None:
    compare(torch.float32, 2e-6, 0.1, 16, heads, groups, pattern)


def compare(
    dtype: torch.dtype, tolerance: float, rate: float, size: int, heads: int, groups: int, pattern: Pattern
) -> None:
    torch.manual_seed(0)
    lengths = [1, 70, 64, 5]
    bounds, tokens = torch.tensor([0, *lengths]).cumsum(0).int().to(DEVICE), sum(lengths)
    keys = torch.randint(-(2**62), 2**62, (tokens,), device=DEVICE)
    dropout = AttentionDropout(rate, 7, keys if rate else None)
    shapes = [(tokens, count, size) for count in (heads, groups, groups, heads)]
    given = [torch.randn(shape, device=DEVICE).to(dtype) for shape in shapes]
    query, key, value = (tensor.clone().requires_grad_() for tensor in given[:3])
    assert takes(query, key, value)
    layout = PackedLayout(bounds, max(lengths))
    output = flash_attention(query, key, value, layout, 2.0 * size**-0.5, dropout, pattern)
    found = [output, *torch.autograd.grad(output, [query, key, value], given[3])]
    query, key, value = (tensor.double().requires_grad_() for tensor in given[:3])
    exact = reference_attention(query, key, value, layout, 2.0 * size**-0.5, dropout, pattern)
    wanted = [exact, *torch.autograd.grad(exact, [query, key, value], given[3].double())]
    for actual, expected in zip(found, wanted, strict=True):
        assert (actual.detach().double() - expected).norm() < tolerance * expected.norm()
