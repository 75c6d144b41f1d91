"""Linear layers that oneDNN trains: results and gradients are those of float64, and the rest stays with torch."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from ftsys.models import fused
from ftsys.models.onednn import training
from ftsys.models.onednn.inference import prepacked
from ftsys.models.onednn.training import TrainedLinear, train_by_onednn

INPUTS, OUTPUTS, ROWS = 256, 264, 600
"""Sizes that are just large enough for oneDNN."""


@pytest.fixture(autouse=True)
def avx512(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every CPU train by oneDNN, whose kernels for others are only slower."""
    monkeypatch.setattr(training, "has_avx512", lambda: True)


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of what is multiplied by oneDNN."""
    seen: list[tuple[int, ...]] = []

    def counted(x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(x.shape))
        return operator(x, *rest)

    operator: Callable[..., torch.Tensor] = training.linear
    monkeypatch.setattr(training, "linear", counted)
    return seen


def trained(bias: bool = True, dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(0)
    layer = nn.Linear(INPUTS, OUTPUTS, bias, dtype=dtype)
    train_by_onednn(layer)
    return layer


def results(layer: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """The output, and the gradients of the input and of all parameters."""
    x = x.clone().requires_grad_()
    output = layer(x)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)
    needed = [each for each in (x, *layer.parameters()) if each.requires_grad]
    return [output.detach(), *torch.autograd.grad((output * weights).sum(), needed)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(ROWS, INPUTS), (1, ROWS, INPUTS), (3, ROWS, INPUTS)], ids=str)
def test_results_and_gradients_are_those_of_float64(
    shape: tuple[int, ...], bias: bool, products: list[tuple[int, ...]]
) -> None:
    layer = trained(bias)
    assert isinstance(layer, TrainedLinear)
    reference = nn.Linear(INPUTS, OUTPUTS, bias, dtype=torch.float64)
    reference.load_state_dict(layer.state_dict())
    x = torch.randn(shape)
    for found, expected in zip(results(layer, x), results(reference, x.double()), strict=True):
        assert found.shape == expected.shape
        torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)
    assert products == [shape, (*shape[:-1], OUTPUTS)]


def test_inputs_and_gradients_may_be_views() -> None:
    layer, x = trained(), torch.randn(INPUTS, 2 * ROWS)[:, ::2].t()
    reference = nn.Linear(INPUTS, OUTPUTS)
    reference.load_state_dict(layer.state_dict())
    for each in (layer, reference):
        leaf = x.clone().requires_grad_()
        each(leaf).t()[::2].square().sum().backward()
        each.weight.of_input = leaf.grad
    torch.testing.assert_close(layer.weight.grad, reference.weight.grad, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(layer.weight.of_input, reference.weight.of_input, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("frozen", ["weight", "bias", "both"])
def test_frozen_parameters_get_no_gradient(frozen: str) -> None:
    layer, x = trained(), torch.randn(ROWS, INPUTS)
    expected = results(layer, x)
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(frozen not in (name, "both"))
    kept = [0, 1, *(number for number, each in enumerate(layer.parameters(), 2) if each.requires_grad)]
    assert all(map(torch.equal, results(layer, x), [expected[number] for number in kept]))


def test_a_first_layer_whose_input_is_data() -> None:
    layer, x = trained(), torch.randn(ROWS, INPUTS)
    layer(x).sum().backward()
    torch.testing.assert_close(layer.weight.grad, x.sum(0).expand(OUTPUTS, -1), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("kept", ["few rows", "no gradients", "autocast", "bf16", "cast after", "partitioned after"])
def test_what_stays_with_torch(kept: str, products: list[tuple[int, ...]]) -> None:
    layer = trained(dtype=torch.bfloat16 if kept == "bf16" else torch.float32)
    x = torch.randn(5 if kept == "few rows" else ROWS, INPUTS)
    if kept == "partitioned after":
        layer.weight.ds_id = 0
    if kept == "cast after":
        layer.to(torch.bfloat16)
    with torch.set_grad_enabled(kept != "no gradients"), torch.autocast("cpu", enabled=kept == "autocast"):
        layer(x.to(layer.weight.dtype))
    assert not products


@pytest.mark.parametrize("left", ["partitioned", "subclass", "small", "no AVX-512", "no operators"])
def test_modules_that_are_left_as_they_are(left: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(nn.Linear):
        """A layer whose forward pass may do anything."""

    layer = (Own if left == "subclass" else nn.Linear)(INPUTS, 8 if left == "small" else OUTPUTS)
    if left == "partitioned":
        layer.weight.ds_id = 0
    if left == "no AVX-512":
        monkeypatch.setattr(training, "has_avx512", lambda: False)
    if left == "no operators":
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    kind = type(layer)
    train_by_onednn(layer)
    assert type(layer) is kind


def test_a_weight_that_changes_before_the_backward_pass_is_refused() -> None:
    layer, x = trained(), torch.randn(ROWS, INPUTS, requires_grad=True)
    output = layer(x)
    with torch.no_grad():
        layer.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_a_second_derivative_is_refused() -> None:
    layer, x = trained(), torch.randn(ROWS, INPUTS, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_evaluation_lays_weights_out_and_leaves_training_as_it_was() -> None:
    layer, x = trained(), torch.randn(ROWS, INPUTS)
    expected = results(layer, x)
    with torch.no_grad(), prepacked(layer):
        torch.testing.assert_close(layer(x), expected[0], atol=1e-5, rtol=1e-5)
        assert layer.prepacked_OI is not None
    assert type(layer) is type(trained())
    assert all(map(torch.equal, results(layer, x), expected))


def test_a_gpu_that_the_layer_is_moved_to_later_still_adds_its_bias_elsewhere() -> None:
    """DeepSpeed moves and casts a model after its view is made; Triton adds the bias together with the residual."""
    layer, x = trained().to(torch.bfloat16), torch.randn(ROWS, INPUTS, dtype=torch.bfloat16)
    without, bias = fused._without_bias(layer, x)
    assert bias is layer.bias
    assert torch.equal(without, nn.functional.linear(x, layer.weight))


def test_copies_train_as_the_original() -> None:
    layer, x = trained(), torch.randn(ROWS, INPUTS)
    copied = copy.deepcopy(layer)
    assert isinstance(copied, TrainedLinear)
    assert all(map(torch.equal, results(copied, x), results(layer, x)))
