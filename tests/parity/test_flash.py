"""The Triton attention against the slow float64 reference: on a GPU where there is one, else by its interpreter."""

import pytest
import torch

from ftsys.kernels.attention import reference_attention
from ftsys.kernels.dropout import AttentionDropout
from ftsys.kernels.layout import PackedLayout

pytest.importorskip("triton", reason="Triton is not installed (make test runs this file with it)")

from ftsys.kernels.flash import flash_attention, takes

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("rate", [0.0, 0.1])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float16, 2e-3)])
def test_it_equals_the_reference_with_the_same_masks(
    dtype: torch.dtype, tolerance: float, rate: float, size: int
) -> None:
    torch.manual_seed(0)
    lengths, heads = [1, 70, 64, 5], 2
    bounds, tokens = torch.tensor([0, *lengths]).cumsum(0).int().to(DEVICE), sum(lengths)
    keys = torch.randint(-(2**62), 2**62, (tokens,), device=DEVICE)
    dropout = AttentionDropout(rate, 7, keys if rate else None)
    given = [torch.randn(tokens, heads, size, device=DEVICE).to(dtype) for _ in range(4)]
    query, key, value = (tensor.clone().requires_grad_() for tensor in given[:3])
    assert takes(query, key, value)
    layout = PackedLayout(bounds, max(lengths))
    output = flash_attention(query, key, value, layout, 2.0 * size**-0.5, dropout)
    found = [output, *torch.autograd.grad(output, [query, key, value], given[3])]
    query, key, value = (tensor.double().requires_grad_() for tensor in given[:3])
    exact = reference_attention(query, key, value, layout, 2.0 * size**-0.5, dropout)
    wanted = [exact, *torch.autograd.grad(exact, [query, key, value], given[3].double())]
    for actual, expected in zip(found, wanted, strict=True):
        assert (actual.detach().double() - expected).norm() < tolerance * expected.norm()
