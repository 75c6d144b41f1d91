"""Tests keyed dropout: its rate, independence of masks, no repeats, and the same mask in every pack."""

import math

import pytest
import torch
from scipy import stats
from torch.utils.checkpoint import checkpoint

from ftsys.kernels.dropout import WIDEST, kept_mask, keyed_dropout, site_offset, token_keys, uniform_rows, windows

EXAMPLES, LENGTH, WIDTH = 200, 20, 96

GOLDEN_KEYS = [6593583289105703160, 4127245523877494888, 3504598964925834898]
GOLDEN_ROWS = [[-7497, 20333, 15801, 6846], [-3401, 25185, -17111, -26423], [-27487, -13954, -17057, 5598]]


def _keys(seed: int = 7, step: int = 3, first_example: int = 0) -> torch.Tensor:
    ids = torch.arange(first_example, first_example + EXAMPLES).repeat_interleave(LENGTH)
    return token_keys(seed, step, ids, torch.arange(LENGTH).repeat(EXAMPLES))


def _dropped(keys: torch.Tensor, site: int, rate: float = 0.5) -> torch.Tensor:
    return (~kept_mask(windows(keys + site_offset(site)), WIDTH, rate)).double()


def test_the_numbers_are_the_same_on_every_machine() -> None:
    keys = token_keys(42, 0, torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0]))
    assert keys.tolist() == GOLDEN_KEYS
    assert uniform_rows(keys, 5, 4).tolist() == GOLDEN_ROWS


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.25, 0.5, 0.9])
def test_the_rate_is_the_rate(rate: float) -> None:
    dropped = _dropped(_keys(), 1, rate)
    deviations = (dropped.sum().item() - rate * dropped.numel()) / math.sqrt(dropped.numel() * rate * (1 - rate))
    assert abs(deviations) < 4
    per_feature = (dropped.sum(0) - rate * len(dropped)) / math.sqrt(len(dropped) * rate * (1 - rate))
    assert per_feature.abs().max() < 5
    assert stats.kstest(per_feature.numpy(), "norm").pvalue > 1e-3


def test_numbers_are_uniform() -> None:
    high_bytes = uniform_rows(_keys(), 2, WIDTH).flatten().to(torch.int64).add(1 << 15).div(256, rounding_mode="floor")
    assert stats.chisquare(torch.bincount(high_bytes, minlength=256).numpy()).pvalue > 1e-3


@pytest.mark.parametrize(
    ("what", "one", "other"),
    [
        ("the next site", _dropped(_keys(), 1), _dropped(_keys(), 2)),
        ("the next step", _dropped(_keys(), 1), _dropped(_keys(step=4), 1)),
        ("the next seed", _dropped(_keys(), 1), _dropped(_keys(seed=8), 1)),
        ("a step and a site that change together", _dropped(_keys(), 1), _dropped(_keys(step=2), 2)),
        ("the next example", _dropped(_keys(), 1), _dropped(_keys(first_example=1), 1)),
        ("the next position", _dropped(_keys(), 1)[:-1], _dropped(_keys(), 1)[1:]),
        ("the next feature", _dropped(_keys(), 1)[:, :-1], _dropped(_keys(), 1)[:, 1:]),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_masks_are_independent(what: str, one: torch.Tensor, other: torch.Tensor) -> None:
    products = (one - 0.5) * (other - 0.5)
    assert abs(products.sum().item()) / (0.25 * math.sqrt(products.numel())) < 4, what
    by_row = products.sum(1) / (0.25 * math.sqrt(products.shape[1]))
    assert by_row.abs().max() < 6, what


def test_no_row_repeats_over_sites_steps_and_examples() -> None:
    rows = torch.cat([uniform_rows(_keys(step=step), site, 16) for step in range(4) for site in range(6)])
    assert len(torch.unique(rows, dim=0)) == len(rows)


def test_a_mask_belongs_to_the_example_wherever_it_is_packed() -> None:
    keys, order = _keys(), torch.randperm(EXAMPLES * LENGTH, generator=torch.Generator().manual_seed(0))
    assert torch.equal(_dropped(keys[order], 1), _dropped(keys, 1)[order])
    assert torch.equal(uniform_rows(keys, 1, WIDTH)[:, :30], uniform_rows(keys, 1, 30))  # padding a row changes nothing


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_what_is_kept_is_scaled_in_every_type(dtype: torch.dtype) -> None:
    keys, generator = _keys(), torch.Generator().manual_seed(0)
    x = torch.randn(len(keys), WIDTH, generator=generator, dtype=torch.float64).to(dtype)
    kept = 1 - _dropped(keys, 1, 0.1)
    dropped = keyed_dropout(x.requires_grad_(), keys, 1, 0.1)
    (gradient,) = torch.autograd.grad(dropped, x, x.detach())
    exact = (x.detach().double() * kept / (1 - 0.1)).to(
        dtype
    )  # one rounding: the factor itself is not rounded to 16 bits
    for found in (dropped, gradient):
        torch.testing.assert_close(found, exact, rtol=0 if dtype.itemsize == 2 else 1e-6, atol=0)


@pytest.mark.parametrize(("rate", "expected"), [(0.0, 1.0), (1e-9, 1.0), (1.0 - 1e-9, 0.0)])
def test_the_ends_of_the_rate(rate: float, expected: float) -> None:
    keys = _keys()
    assert torch.unique(keyed_dropout(torch.ones(len(keys), WIDTH), keys, 1, rate)).tolist() == [expected]


def test_the_gradient_has_the_forward_pass_mask() -> None:
    keys = _keys()[:4]
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(lambda x: keyed_dropout(x, keys, 3, 0.4), (x,))


def test_recomputed_activations_have_the_same_mask() -> None:
    keys = _keys()
    x = torch.ones(len(keys), WIDTH, requires_grad=True)
    recomputed = checkpoint(lambda x: keyed_dropout(x, keys, 3, 0.4) ** 2, x, use_reentrant=False)
    recomputed.sum().backward()
    plain = x.detach().requires_grad_()
    (keyed_dropout(plain, keys, 3, 0.4) ** 2).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, plain.grad)


def test_a_row_wider_than_the_tables_is_refused() -> None:
    with pytest.raises(ValueError, match="16385 elements is wider than 16384"):
        uniform_rows(_keys()[:1], 0, WIDEST + 1)
