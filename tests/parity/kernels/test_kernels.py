"""Tests the attention kernels against the slow reference in float64, for every pattern, and the choice of a kernel."""

import pytest
import torch

from ftsys.errors import ConfigError
from ftsys.kernels.attention import padded_attention, reference_attention
from ftsys.kernels.dropout import AttentionDropout
from ftsys.kernels.layout import PackedLayout
from ftsys.kernels.pattern import PLAIN, Pattern, RelativeTerms
from ftsys.kernels.select import KERNELS, choose_kernel

LENGTHS = ([5, 1, 24, 7, 7], [6, 6, 6], [24], [1, 1])
HEADS, HEAD_SIZE = 4, 8
MASKS = {
    "plain": PLAIN,
    "causal": Pattern(causal=True),
    "window": Pattern(window=3),
    "causal window": Pattern(causal=True, window=3),
    "wide window": Pattern(window=100),
}


def layout_of(lengths: list[int]) -> PackedLayout:
    return PackedLayout(torch.tensor([0, *lengths]).cumsum(0).int(), max(lengths))


def random_states(lengths: list[int], heads: int) -> torch.Tensor:
    return torch.randn(sum(lengths), heads, HEAD_SIZE, dtype=torch.float64, requires_grad=True)


def assert_equals_the_reference(
    name: str, lengths: list[int], pattern: Pattern, tables: list[torch.Tensor], groups: int = HEADS
) -> None:
    """Return the output and the gradients of queries, keys, values and `tables`."""
    inputs = [random_states(lengths, heads) for heads in (HEADS, groups, groups)]
    gradient = torch.randn(sum(lengths), HEADS, HEAD_SIZE, dtype=torch.float64)
    results: list[list[torch.Tensor]] = []
    for kernel in (reference_attention, KERNELS[name]):
        query, key, value = inputs
        output = kernel(query, key, value, layout_of(lengths), 0.3, pattern=pattern)
        results.append([output, *torch.autograd.grad(output, [*inputs, *tables], gradient)])
    for actual, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("groups", [1, 2, HEADS])
@pytest.mark.parametrize("mask", list(MASKS))
@pytest.mark.parametrize("name", sorted(set(KERNELS) - {"reference"}))
def test_every_kernel_equals_the_reference(name: str, mask: str, groups: int) -> None:
    for lengths in LENGTHS:
        assert_equals_the_reference(name, lengths, MASKS[mask], [], groups)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("given", ["bias_HO", "keys_HOK", "queries_HOK", "all"])
@pytest.mark.parametrize("name", sorted(set(KERNELS) - {"reference"}))
def test_relative_terms_equal_the_reference(name: str, given: str, causal: bool) -> None:
    for lengths in LENGTHS:
        offsets = 2 * max(lengths) - 1
        shapes = {
            "bias_HO": (HEADS, offsets),
            **dict.fromkeys(("keys_HOK", "queries_HOK"), (HEADS, offsets, HEAD_SIZE)),
        }
        tables = {
            field: torch.randn(shape, dtype=torch.float64, requires_grad=True)
            for field, shape in shapes.items()
            if given in (field, "all")
        }
        pattern = Pattern(causal=causal, relative=RelativeTerms(**tables))
        for groups in (2, HEADS):
            assert_equals_the_reference(name, lengths, pattern, list(tables.values()), groups)


def test_the_reference_adds_what_the_relative_terms_define() -> None:
    """Compare with a result by hand for one head: with queries and keys of zeros, the scores are the bias."""
    length = 3
    bias_HO = torch.randn(1, 2 * length - 1, dtype=torch.float64)
    zeros, eye = torch.zeros(length, 1, 3, dtype=torch.float64), torch.eye(length, dtype=torch.float64)[:, None]
    pattern = Pattern(relative=RelativeTerms(bias_HO=bias_HO))
    weights = reference_attention(zeros, zeros, eye, layout_of([length]), 1.0, pattern=pattern)[:, 0]
    scores = torch.stack([torch.stack([bias_HO[0, i - j + length - 1] for j in range(length)]) for i in range(length)])
    torch.testing.assert_close(weights, scores.softmax(-1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 1, 3, 9])
def test_what_a_pattern_hides(causal: bool, window: int | None) -> None:
    hidden = Pattern(causal, window).hidden_LL(5, torch.device("cpu"))
    expected = [
        [(causal and key > query) or (window is not None and abs(key - query) >= window) for key in range(5)]
        for query in range(5)
    ]
    found = hidden.tolist() if hidden is not None else [[False] * 5] * 5
    assert found == expected


def test_attention_dropout_drops_at_its_rate() -> None:
    """With uniform weights over L keys and values of one, the output is the kept fraction divided by 1 - rate."""
    length, rate = 64, 0.25
    layout = PackedLayout(torch.tensor([0, length, length + 8]).int(), length)
    zeros = torch.zeros(length + 8, 4, 8)
    torch.manual_seed(0)
    output = padded_attention(zeros, zeros, torch.ones_like(zeros), layout, 1.0, AttentionDropout(rate))
    assert abs(float(output.mean()) - 1.0) < 0.02
    assert float(output.std()) > 0.01


def test_a_kernel_is_taken_by_name_or_refused_with_the_names_there_are() -> None:
    assert choose_kernel("auto") in KERNELS
    assert choose_kernel("reference") == "reference"
    names = "'flash_attn', 'grouped', 'native', 'padded', 'reference', 'triton', 'varlen'"
    with pytest.raises(ConfigError, match=rf"engine.kernels='fast' is not a kernel.*{names}"):
        choose_kernel("fast")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shift", [0.0, 100.0, -100.0])
def test_scores_far_from_zero_neither_overflow_nor_vanish(dtype: torch.dtype, shift: float) -> None:
    """Use scores of +-100 and more, whose exponentials overflow float32 unless the row's maximum is subtracted."""
    lengths = [5, 24, 7]
    query, key, value = (torch.randn(sum(lengths), HEADS, HEAD_SIZE, dtype=dtype) for _ in range(3))
    key[..., 0], query[..., 0] = 10.0, shift / 10.0
    expected = reference_attention(query.double(), key.double(), value.double(), layout_of(lengths), 1.0)
    found = KERNELS["grouped"](query, key, value, layout_of(lengths), 1.0)
    tolerance = 1e-4 if dtype == torch.float32 else 0.5  # bf16 holds a score of 100 to within 0.5
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)
