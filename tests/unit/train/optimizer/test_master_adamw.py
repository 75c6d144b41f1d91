"""Masters in float32 behind 16-bit weights: torch's AdamW exactly, and rows that never had a gradient left alone."""

import copy
import logging
from typing import Any

import pytest
import torch
from torch import nn

from ftsys.kernels.native.library import native, why_not_native
from ftsys.train.checkpoint.state_dict import export_state, import_state
from ftsys.train.optimizer import master_adamw, multi_tensor
from ftsys.train.optimizer.master_adamw import MasterAdamW, with_masters

ROWS, WIDTH = 64, 8


@pytest.fixture(autouse=True, params=["native", "multi-tensor"])
def small_buckets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multi_tensor, "BUCKET", 40)
    monkeypatch.setattr(master_adamw, "MANY_ROWS", ROWS)
    if request.param == "multi-tensor":
        monkeypatch.setattr(master_adamw, "native", lambda: None)
    elif native() is None:
        pytest.skip(f"no native kernels: {why_not_native()}")


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(ROWS, WIDTH), nn.Linear(WIDTH, 5), nn.Linear(5, 3))


def _groups(model: nn.Module, decay: float = 0.0) -> list[dict[str, Any]]:
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    others = [p for name, p in model.named_parameters() if not name.endswith("bias")]
    return [{"params": others, "weight_decay": decay}, {"params": biases, "weight_decay": 0.0}]


def _backward(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(0, ROWS // 2, (6,), generator=generator) + (16 if step > 3 else 0)
    model.zero_grad()
    (model(ids).float() ** 2).sum().backward()


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("largest_norm", [1e9, 0.3])
def test_in_float32_it_is_torchs_adamw_with_clipping(decay: float, largest_norm: float) -> None:
    ours, theirs = _model(), _model()
    optimizer = MasterAdamW(_groups(ours, decay), lr=1e-2)
    optimizer.lower(torch.float32)
    reference = torch.optim.AdamW(_groups(theirs, decay), lr=1e-2, fused=True)
    for step in range(6):
        _backward(ours, step)
        _backward(theirs, step)
        norm = optimizer.clip(largest_norm)
        exact = torch.cat([p.grad.double().flatten() for p in theirs.parameters() if p.grad is not None]).norm()
        assert norm.item() == pytest.approx(exact.item(), rel=1e-6)
        nn.utils.clip_grad_norm_(theirs.parameters(), largest_norm)
        optimizer.step()
        reference.step()
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name), parameter, rtol=1e-5, atol=1e-7)


def test_a_step_after_a_norm_that_is_not_finite_changes_nothing() -> None:
    model = _model()
    optimizer = MasterAdamW(_groups(model, 0.1), lr=1e-2)
    optimizer.lower(torch.bfloat16)
    for bad in (None, float("nan"), float("inf")):
        _backward(model, 0)
        if bad is not None:
            model[2].bias.grad[1] = bad
        before = copy.deepcopy((export_state(model, optimizer), model.state_dict()))
        norm = optimizer.clip(1.0)
        optimizer.step()
        after = export_state(model, optimizer), model.state_dict()
        assert bool(norm.isfinite()) is (bad is None)
        assert _equal(before, after) is (bad is not None)


def _equal(one: Any, other: Any) -> bool:
    """Compare weights, optimizer states, counts of steps, and the model's own parameters."""
    (state, live), (other_state, other_live) = one, other
    tensors = all(torch.equal(state.weights[name], other_state.weights[name]) for name in state.weights)
    return tensors and state.numbers == other_state.numbers and all(torch.equal(live[n], other_live[n]) for n in live)


def test_small_updates_are_not_lost_to_rounding() -> None:
    model = nn.Linear(4, 1, bias=False)
    nn.init.ones_(model.weight)
    optimizer = MasterAdamW([{"params": list(model.parameters())}], lr=1e-4)
    optimizer.lower(torch.bfloat16)
    for _ in range(100):
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step()
    master = optimizer.param_groups[0]["params"][0]
    assert master.dtype == torch.float32
    torch.testing.assert_close(master, torch.full((1, 4), 0.99), atol=1e-4, rtol=0)
    assert model.weight.dtype == torch.bfloat16
    assert torch.equal(model.weight, master.bfloat16())


def test_rows_without_a_gradient_keep_their_bits_and_woken_rows_move_on() -> None:
    model = _model()
    before = copy.deepcopy(model[0].weight.detach())
    optimizer = MasterAdamW(_groups(model), lr=1e-2)
    for step in range(6):
        _backward(model, step)
        optimizer.step()
    touched = optimizer.state[optimizer.param_groups[0]["params"][0]]["exp_avg_sq"].any(1)
    changed = (model[0].weight != before).any(1)
    assert 0 < touched.sum() < ROWS
    assert torch.equal(touched, changed)


def test_a_state_taken_over_goes_on_bit_for_bit() -> None:
    whole, cut = _model(), _model()
    first = MasterAdamW(_groups(whole), lr=1e-2)
    first.lower(torch.bfloat16)
    for step in range(3):
        _backward(whole, step)
        first.step()
    second = MasterAdamW(_groups(cut), lr=1e-2)
    second.lower(torch.bfloat16)
    saved = export_state(whole, first)
    assert all(tensor.dtype == torch.float32 for tensor in saved.weights.values())
    import_state(cut, second, saved)
    for step in range(3, 6):
        for model, optimizer in ((whole, first), (cut, second)):
            _backward(model, step)
            optimizer.clip(0.5)
            optimizer.step()
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, cut.get_parameter(name)), name


def test_a_state_of_plain_adamw_is_taken_over() -> None:
    whole, other = _model(), _model()
    plain = torch.optim.AdamW(_groups(whole), lr=1e-2)
    for step in range(3):
        _backward(whole, step)
        plain.step()
    optimizer = MasterAdamW(_groups(other), lr=1e-2)
    optimizer.lower(torch.bfloat16)
    import_state(other, optimizer, export_state(whole, plain))
    masters = dict(zip([id(p) for group in optimizer.live for p in group], _masters(optimizer), strict=True))
    for name, parameter in whole.named_parameters():
        assert torch.equal(masters[id(other.get_parameter(name))], parameter)
        assert torch.equal(other.get_parameter(name), parameter.bfloat16())


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda groups: torch.optim.AdamW(groups, amsgrad=True), "AdamW on masters has no amsgrad"),
        (lambda groups: torch.optim.AdamW(groups, maximize=True), "AdamW on masters has no maximize"),
        (lambda groups: torch.optim.SGD(groups, lr=0.1), "the optimizer is SGD, and masters are for torch's AdamW"),
    ],
    ids=["amsgrad", "maximize", "SGD"],
)
def test_an_optimizer_that_cannot_have_masters_stays_and_is_told(
    make: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = _model()
    optimizer = make(_groups(model))
    with caplog.at_level(logging.WARNING, "ftsys"):
        assert with_masters(optimizer, model) is optimizer
    assert [record.getMessage() for record in caplog.records] == [
        f"ftsys: master_weights=True has no effect, because {reason}"
    ]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_masters_are_made_once(caplog: pytest.LogCaptureFixture) -> None:
    model = _model()
    masters = with_masters(torch.optim.AdamW(_groups(model)), model)
    assert isinstance(masters, MasterAdamW)
    with caplog.at_level(logging.WARNING, "ftsys"):
        assert with_masters(masters, model) is masters
    assert caplog.records == []


def _masters(optimizer: MasterAdamW) -> list[torch.Tensor]:
    return [master for group in optimizer.param_groups for master in group["params"]]
