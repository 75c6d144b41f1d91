"""Every attention kernel that a GPU may have, on the GPU, against the slow float64 reference on the same numbers."""

import pytest
import torch

from ftsys.errors import ConfigError
from ftsys.kernels.attention import reference_attention
from ftsys.kernels.dropout import NO_DROPOUT, AttentionDropout
from ftsys.kernels.layout import PackedLayout
from ftsys.kernels.pattern import PLAIN, Pattern
from ftsys.kernels.select import COMPUTED_BY, choose_kernel

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

LENGTHS = [1, 130, 64, 5, 77]
PATTERNS = [PLAIN, Pattern(causal=True), Pattern(window=20), Pattern(causal=True, window=20)]


@pytest.fixture(params=["triton", "varlen", "flash_attn"])
def kernel(request: pytest.FixtureRequest) -> str:
    try:
        return choose_kernel(request.param, "cuda")
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: f"causal={pattern.causal}, window={pattern.window}")
@pytest.mark.parametrize(("heads", "groups", "size"), [(4, 4, 32), (4, 2, 64), (2, 2, 96)])
def test_it_equals_the_reference(kernel: str, pattern: Pattern, heads: int, groups: int, size: int) -> None:
    compare(kernel, torch.bfloat16, 1e-2, heads, groups, size, NO_DROPOUT, pattern)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 1e-2)])
def test_keyed_dropout_is_the_references(dtype: torch.dtype, tolerance: float) -> None:
    keys = torch.randint(-(2**62), 2**62, (sum(LENGTHS),), device="cuda")
    compare("triton", dtype, tolerance, 4, 4, 64, AttentionDropout(0.1, 7, keys), PLAIN)


def test_two_backward_passes_of_ours_agree_bit_for_bit() -> None:
    states = [torch.randn(sum(LENGTHS), 4, 64, device="cuda", dtype=torch.bfloat16) for _ in range(4)]
    first, second = (gradients("triton", states, NO_DROPOUT, PLAIN) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def compare(
    kernel: str, dtype: torch.dtype, tolerance: float, heads: int, groups: int, size: int,
    dropout: AttentionDropout, pattern: Pattern,
) -> None:  # fmt: skip
    torch.manual_seed(0)
    shapes = [(sum(LENGTHS), count, size) for count in (heads, groups, groups, heads)]
    states = [torch.randn(shape, device="cuda").to(dtype) for shape in shapes]
    found = gradients(kernel, states, dropout, pattern)
    wanted = gradients("reference", [tensor.double() for tensor in states], dropout, pattern)
    for actual, expected in zip(found, wanted, strict=True):
        assert (actual.double() - expected).norm() < tolerance * expected.norm()


def gradients(
    kernel: str, states: list[torch.Tensor], dropout: AttentionDropout, pattern: Pattern
) -> list[torch.Tensor]:
    """The output, and the gradients of queries, keys and values for the gradient `states[3]`."""
    computes = COMPUTED_BY.get(kernel, reference_attention)
    given = [tensor.clone().requires_grad_() for tensor in states[:3]]
    bounds = torch.tensor([0, *LENGTHS], device="cuda").cumsum(0).int()
    output = computes(*given, PackedLayout(bounds, max(LENGTHS)), 0.2, dropout, pattern)
    return [output.detach(), *torch.autograd.grad(output, given, states[3])]
