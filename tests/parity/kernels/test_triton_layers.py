"""Tests the Triton kernels of keys, dropout and norms against float64, on a GPU or else with Triton's interpreter."""

import os

import pytest
import torch
from torch import Tensor, nn

from ftsys.kernels.dropout import head_keys, keyed_dropout, site_offset, windows
from ftsys.kernels.dropout import token_keys as slow_token_keys

pytest.importorskip("triton", reason="Triton is not installed (make test runs this file with it)")
if not (torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET")):
    pytest.skip("no GPU: make test runs this file in Triton's interpreter", allow_module_level=True)

from ftsys.kernels.triton_layers import dropout, keys, norm

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCES = {torch.float32: 2e-6, torch.float16: 2e-3}


def row_keys(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(-(2**63), 2**63 - 1, (count,), generator=generator).to(DEVICE)


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, device=DEVICE).to(dtype).requires_grad_()


@pytest.mark.parametrize(("seed", "step"), [(0, 0), (2**32 - 1, 10**6)])
def test_token_keys_are_those_of_the_cpu(seed: int, step: int) -> None:
    lengths = [1, 300, 5, 256]
    bounds = torch.tensor([0, *lengths]).cumsum(0).int().to(DEVICE)
    ids = torch.tensor([7, 0, -1, 2**40], device=DEVICE)
    positions = torch.cat([torch.arange(length) for length in lengths]).to(DEVICE)
    expected = slow_token_keys(seed, step, ids.repeat_interleave(torch.tensor(lengths, device=DEVICE)), positions)
    assert torch.equal(keys.token_keys(seed, step, bounds, max(lengths), ids, positions), expected)


@pytest.mark.parametrize("heads", [1, 3, 12])
def test_head_windows_are_those_of_the_cpu(heads: int) -> None:
    sites, token_keys = [0, 5 << 12, 2**31], row_keys(50)
    offsets = torch.tensor([site_offset(site) for site in sites], device=DEVICE)
    found = keys.head_windows(token_keys, offsets, heads)
    for number, offset in enumerate(offsets):
        expected = windows(head_keys(token_keys, heads) + offset)
        assert all(torch.equal(one[number], other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_dropout_has_the_masks_and_values_of_the_cpu(dtype: torch.dtype, rate: float) -> None:
    x, drawn, gradient = random(2, 19, 40, dtype=dtype), row_keys(38).view(2, 19), torch.randn(2, 19, 40).to(DEVICE)
    fast = dropout.keyed_dropout(x, dropout.RowDropout(drawn, 9 << 12, rate))
    slow = keyed_dropout(x, drawn, 9 << 12, rate)
    found, expected = ((y, *torch.autograd.grad(y, x, gradient.to(dtype))) for y in (fast, slow))
    for actual, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=0)


def reference(how: norm.NormOf, x: Tensor, weight: Tensor, *optional: Tensor | None) -> Tensor:
    residual, shift, bias = optional
    total = x if bias is None else x + bias
    if how.dropout is not None:
        total = keyed_dropout(total, how.dropout.keys, how.dropout.site, how.dropout.rate)
    total = total if residual is None else total + residual
    if how.centered:
        return nn.functional.layer_norm(total, total.shape[-1:], weight + how.added, shift, how.epsilon)
    return nn.functional.rms_norm(total, total.shape[-1:], weight + how.added, how.epsilon)


@pytest.mark.parametrize("rows", [1, 5, 300])
@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize(
    ("rate", "centered", "residual", "shift", "bias"),
    [
        (0.1, True, True, True, True),
        (0.0, True, True, True, True),
        (0.3, True, True, True, False),
        (0.0, True, False, False, False),
        (0.0, False, False, False, False),
        (0.0, False, True, False, False),
        (0.2, False, True, False, True),
        (0.2, True, False, True, False),
    ],
)
def test_norms_equal_float64(
    rate: float, centered: bool, residual: bool, shift: bool, bias: bool, dtype: torch.dtype, rows: int
) -> None:
    torch.manual_seed(rows)
    width = 24
    x, weight = random(rows, width, dtype=dtype), random(width, dtype=dtype)
    optional = [
        random(*shape, dtype=dtype) if present else None
        for shape, present in (((rows, width), residual), ((width,), shift), ((width,), bias))
    ]
    drawn = dropout.RowDropout(row_keys(rows), 4 << 12, rate) if rate else None
    how = norm.NormOf(1e-5, drawn, centered, 0.0 if centered else 1.0)
    gradients = [torch.randn(rows, width, device=DEVICE).to(dtype) for _ in range(2)]
    leaves = [tensor for tensor in (x, weight, *optional) if tensor is not None]
    y, twin = norm.add_norm(x, weight, how, *optional)
    found = [y, *torch.autograd.grad([y, twin], leaves, gradients)]
    doubles = [None if t is None else t.detach().double().requires_grad_() for t in (x, weight, *optional)]
    exact = reference(how, *doubles)
    wanted = torch.autograd.grad(exact, [t for t in doubles if t is not None], sum(g.double() for g in gradients))
    for actual, expected in zip(found, [exact, *wanted], strict=True):
        assert actual.dtype == dtype
        assert (actual.detach().double() - expected).norm() <= TOLERANCES[dtype] * expected.norm() * 2
