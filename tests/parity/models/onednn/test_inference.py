"""Linear layers with weights in oneDNN's order give the results of the same layers without."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertConfig
from transformers.activations import GELUActivation
from transformers.models.bert.modeling_bert import BertIntermediate

from ftsys.models.onednn import inference, operators
from ftsys.models.onednn.inference import LinearWithGELU, PrepackedLinear, prepack

INPUTS, OUTPUTS = 256, 264
"""Sizes that are just large enough to be prepacked."""
NO_BF16 = "oneDNN has no kernels for bf16 on this CPU"


def intermediate() -> BertIntermediate:
    """The first half of BERT's feed-forward."""
    return BertIntermediate(BertConfig(hidden_size=INPUTS, intermediate_size=OUTPUTS))


class Own(nn.Module):
    """A class with the same parts, which does more."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.intermediate_act_fn = nn.Linear(INPUTS, OUTPUTS), GELUActivation()

    def forward(self, hidden_states: torch.Tensor) -> Any:
        return 2 * self.intermediate_act_fn(self.dense(hidden_states))


def reference(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """The layer's result in float64, from its own weights."""
    result = x.double() @ layer.weight.double().t()
    return result if layer.bias is None else result + layer.bias.double()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1, INPUTS), (7, INPUTS), (3, 5, INPUTS), (0, INPUTS), (1, 5000, INPUTS)], ids=str)
def test_a_layer_gives_the_float64_result(shape: tuple[int, ...], dtype: torch.dtype, bias: bool) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(INPUTS, OUTPUTS, bias).to(dtype), torch.randn(shape).to(dtype)
    if ("cpu", dtype) not in operators.usable_kinds():
        pytest.skip(NO_BF16)
    prepack(layer)
    assert isinstance(layer, PrepackedLinear)
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        found = layer(x)
    assert found.dtype == dtype
    assert found.shape == (*shape[:-1], OUTPUTS)
    close: dict[str, float] = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 2e-2, "rtol": 8e-3}
    torch.testing.assert_close(found.double(), reference(layer, x), **close)


def halves(layer: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """What a feed-forward's first half gives before and after it is prepacked."""
    x = torch.randn(3, 200, INPUTS)
    with torch.no_grad():
        before = layer(x)
        prepack(layer)
        return before, layer(x)


@pytest.mark.parametrize("capability", ["AVX512", "AVX2"])
def test_gelu_is_computed_with_the_product_where_that_is_faster(
    capability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    layer = intermediate()
    before, after = halves(layer)
    assert isinstance(layer, LinearWithGELU) == (capability == "AVX512")
    torch.testing.assert_close(after, before, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("watched", ["dense", "intermediate_act_fn"])
def test_a_module_with_a_hook_is_still_called(watched: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    layer, seen = intermediate(), list[int]()
    layer.get_submodule(watched).register_forward_hook(lambda *_: seen.append(1))
    halves(layer)
    assert seen == [1, 1]
    assert not isinstance(layer, LinearWithGELU)


def test_another_activation_stays() -> None:
    layer = intermediate()
    layer.intermediate_act_fn = nn.GELU(approximate="tanh")
    before, after = halves(layer)
    torch.testing.assert_close(after, before, atol=1e-6, rtol=1e-5)


def test_copies_make_their_own_weights() -> None:
    layer, x = nn.Linear(INPUTS, OUTPUTS), torch.randn(600, INPUTS)
    prepack(layer)
    with torch.no_grad():
        expected = layer(x)
        other = copy.deepcopy(layer)
        assert other.prepacked_OI is None
        assert torch.equal(other(x), expected)
        other.weight.zero_()
        assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("changed", ["subclass", "dtype", "small", "no operators", "one operator gone"])
def test_what_is_left_as_it_is(changed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(nn.Linear):
        """A layer whose forward pass may do anything."""

    layer: nn.Module = (Own if changed == "subclass" else nn.Linear)(24, 40)
    layer.to(torch.float64 if changed == "dtype" else torch.float32)
    if changed == "no operators":
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    if changed == "one operator gone":
        monkeypatch.setattr(operators, "OPERATORS", ("_linear_pointwise", "_gone"))
    kind = type(layer)
    prepack(layer)
    assert type(layer) is kind


def test_bf16_is_left_where_the_cpu_has_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert operators.usable_kinds() == {("cpu", torch.float32)}


def test_weights_may_change_between_two_contexts() -> None:
    layer, x = intermediate(), torch.randn(600, INPUTS)
    kinds, attributes = [type(each) for each in layer.modules()], set(vars(layer.dense))
    for _ in range(2):
        with torch.no_grad():
            layer.dense.weight.add_(0.1)
            expected = layer(x)
            with inference.prepacked(layer):
                assert isinstance(layer.dense, PrepackedLinear)
                torch.testing.assert_close(layer(x), expected, atol=1e-4, rtol=1e-5)
    assert [type(each) for each in layer.modules()] == kinds
    assert set(vars(layer.dense)) == attributes


def test_a_context_that_ends_with_an_error_leaves_nothing() -> None:
    layer = nn.Linear(INPUTS, OUTPUTS)
    with pytest.raises(ZeroDivisionError), inference.prepacked(layer):
        raise ZeroDivisionError
    assert type(layer) is nn.Linear


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16], ids=str)
def test_autocast_decides_about_the_dtype(weights: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    layer, x = intermediate().to(weights), torch.randn(600, INPUTS)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = layer(x)
        with inference.prepacked(layer):
            found = layer(x)
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=8e-3)


def test_partitioned_weights_are_left_to_deepspeed() -> None:
    layer = nn.Linear(INPUTS, OUTPUTS)
    layer.weight.ds_id = 0
    prepack(layer)
    assert type(layer) is nn.Linear


@pytest.mark.parametrize("replaced", ["module", "dense", "intermediate_act_fn"])
def test_code_from_elsewhere_is_still_run(replaced: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    layer: nn.Module = Own() if replaced == "module" else intermediate()
    if replaced != "module":
        part = layer.get_submodule(replaced)
        own = part.forward
        part.forward = lambda x: own(x) + 1
    before, after = halves(layer)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)


def test_gradients_are_those_of_the_stock_layer() -> None:
    layer, x = intermediate(), torch.randn(600, INPUTS)
    layer(x).sum().backward()
    expected = layer.dense.weight.grad
    layer.zero_grad()
    with inference.prepacked(layer):
        copied = copy.deepcopy(layer)
        layer(x).sum().backward()
        assert torch.equal(layer.dense.weight.grad, expected)
    copied(x).sum().backward()
    assert torch.equal(copied.dense.weight.grad, expected)


def test_weights_of_another_class_are_left_alone() -> None:
    """As those of torchao, which look like float32 and hold integers."""

    class Quantized(torch.Tensor):
        pass

    layer = nn.Linear(INPUTS, OUTPUTS)
    layer.weight = nn.Parameter(layer.weight.detach().as_subclass(Quantized))
    prepack(layer)
    assert type(layer) is nn.Linear
