"""Tests linear layers that are joined: values and gradients, where their parameters lie, and what is saved."""

import copy
import io
import itertools
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_model
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from ftsys.kernels.triton_layers import choice
from ftsys.models.joint_linear import (
    LinearGroup,
    columns_side_by_side,
    joint_product,
    place_side_by_side,
    side_by_side,
)
from ftsys.models.layout_slot import LayoutSlot
from ftsys.models.packed import PackedView
from tests.parity.models.tiny_models import small_model

SIZES = (6, 4, 4)


def layers(bias: bool = True) -> list[nn.Linear]:
    torch.manual_seed(0)
    return [nn.Linear(8, size, bias=bias, dtype=torch.float64) for size in SIZES]


def values_and_gradients(results: tuple[Tensor, ...], *leaves: Tensor) -> list[Tensor]:
    return [*results, *torch.autograd.grad(sum(result.sin().sum() for result in results), leaves)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 5])
def test_a_joint_product_is_that_of_each_layer(rows: int, bias: bool) -> None:
    members, read = layers(bias), torch.randn(1, rows, 8, dtype=torch.float64, requires_grad=True)
    leaves = [read, *itertools.chain.from_iterable(member.parameters() for member in members)]
    expected = values_and_gradients(tuple(member(read) for member in members), *leaves)
    found = values_and_gradients(joint_product(read, members), *leaves)
    for actual, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(actual, wanted)


def test_a_frozen_layer_has_no_gradient() -> None:
    members, read = layers(), torch.randn(3, 8, dtype=torch.float64)
    members[1].requires_grad_(False)
    sum(result.sum() for result in joint_product(read, members)).backward()
    assert members[1].weight.grad is None
    assert members[0].weight.grad is not None


def test_parameters_that_own_their_memory_are_moved_once() -> None:
    members = layers()
    weights = [member.weight for member in members]
    before = [weight.clone() for weight in weights]
    place_side_by_side(weights)
    places = [weight.data_ptr() for weight in weights]
    place_side_by_side(weights)
    assert [weight.data_ptr() for weight in weights] == places
    assert all(torch.equal(weight, old) for weight, old in zip(weights, before, strict=True))
    assert side_by_side(weights).data_ptr() == places[0]
    with torch.no_grad():
        weights[1].fill_(7.0)
    assert torch.equal(side_by_side(weights), torch.cat([weight.detach() for weight in weights]))


def test_weights_moved_in_inference_mode_can_be_trained() -> None:
    members, read = layers(), torch.randn(3, 8, dtype=torch.float64)
    with torch.inference_mode():
        joint_product(read, members)
    sum(result.sum() for result in joint_product(read, members)).backward()
    with torch.no_grad():
        members[0].weight.add_(members[0].weight.grad)


def test_parameters_in_another_owner_s_memory_stay_there() -> None:
    """DeepSpeed's weights are views of a flat tensor that it updates."""
    members, flat = layers(), torch.randn(8 * 16, dtype=torch.float64)
    rows = flat.view(16, 8)
    members[0].weight.data, members[1].weight.data, members[2].weight.data = rows[:6], rows[8:12], rows[12:]
    weights = [member.weight for member in members]
    place_side_by_side(weights)
    flat.fill_(3.0)
    assert all((weight == 3.0).all() for weight in weights)
    assert (side_by_side(weights) == 3.0).all()


def test_weights_that_change_before_the_backward_pass_are_refused() -> None:
    members, read = layers(), torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    total = sum(result.sum() for result in joint_product(read, members))
    with torch.no_grad():
        members[2].weight.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


def test_columns_of_one_tensor_are_not_copied() -> None:
    whole = torch.randn(1, 5, 14)
    assert columns_side_by_side(whole.split(SIZES, -1)).data_ptr() == whole.data_ptr()
    others = [part.clone() for part in whole.split(SIZES, -1)]
    assert torch.equal(columns_side_by_side(others), whole[0])


def test_a_model_with_joined_weights_is_saved_copied_and_loaded_as_before(tmp_path: Path) -> None:
    model = small_model("bert", 2).float().eval()
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    view = PackedView(model, choice.TRITON)
    for module in model.modules():
        if hasattr(module, "group") and module is module.group.members[0]:
            joint_product(torch.randn(3, module.in_features), module.group.members)
    assert view is not None
    model.save_pretrained(tmp_path)
    stream = io.BytesIO()
    torch.save(model.state_dict(), stream)
    stream.seek(0)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).state_dict()
    for states in (loaded, torch.load(stream), copy.deepcopy(model).state_dict()):
        assert states.keys() == expected.keys()
        assert all(torch.equal(states[name], tensor) for name, tensor in expected.items())


def test_a_model_without_its_view_shares_no_memory(tmp_path: Path) -> None:
    model = small_model("bert", 2).float().eval()
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    view, query = PackedView(model, choice.TRITON), model.base_model.encoder.layer[0].attention.self.query
    members = query.group.members
    joint_product(torch.randn(3, query.in_features), members)
    assert query.weight.untyped_storage().nbytes() == 3 * query.weight.nbytes
    parameters, gradient = dict(model.named_parameters()), torch.ones_like(query.weight)
    query.weight.grad = gradient
    view.remove()
    assert all(dict(model.named_parameters())[name] is parameter for name, parameter in parameters.items())
    assert query.weight.grad is gradient
    storages = [tensor.untyped_storage() for tensor in model.state_dict().values()]
    assert len({storage.data_ptr() for storage in storages}) == len(storages)
    assert sum(storage.nbytes() for storage in storages) == sum(tensor.nbytes for tensor in expected.values())
    save_model(model, str(tmp_path / "model.safetensors"))  # which refuses shared memory
    saved = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in expected.items())


def test_another_owner_s_block_is_not_taken_apart() -> None:
    """DeepSpeed's flat tensor may hold exactly the parameters of a group: it must go on to be their memory."""
    members, flat = layers(bias=False), torch.randn(14, 8, dtype=torch.float64)
    for member, rows in zip(members, flat.split(SIZES), strict=True):
        member.weight.data = rows
    LinearGroup(members, LayoutSlot.__new__(LayoutSlot)).separate()
    flat.fill_(3.0)
    assert all((member.weight == 3.0).all() for member in members)
