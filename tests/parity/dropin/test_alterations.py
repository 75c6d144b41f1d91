"""Models and Trainers that a script has altered: each trains to the stock Trainer's numbers, or packs nothing."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import BertForSequenceClassification
from transformers.trainer_pt_utils import LabelSmoother

from ftsys.models.packed import PackedView
from ftsys.models.proof import alterations
from ftsys.models.proof.compare import why_unproven
from ftsys.models.proof.rows import proof_batches
from tests.parity.trainer.sides import OURS, STOCK, data, model, trainer_of

CPU = torch.device("cpu")


class MeanPooler(nn.Module):
    """Averages all tokens, those of padding too."""

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden.mean(1)


class Convolution(nn.Module):
    """A layer that sees its neighbours in the sequence."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.inner = nn.Conv1d(32, 32, 3, padding=1)

    def forward(self, hidden: Tensor, *rest: Any, **named: Any) -> Tensor:
        return hidden + self.inner(hidden.transpose(1, 2)).transpose(1, 2)


class Mixing(nn.Linear):
    """A head that subtracts the mean over the batch."""

    def forward(self, rows: Tensor) -> Tensor:
        return super().forward(rows) - rows.mean(0, keepdim=True).sum()


class OldBackward(torch.autograd.Function):
    """Passes rows on, and three times their gradient where they are more than three."""

    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        context.count = len(rows)
        return rows.clone()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * context.count


class CountingGradient(nn.Linear):
    """A head with the right logits, whose gradient depends on the number of rows."""

    def forward(self, rows: Tensor) -> Tensor:
        return super().forward(OldBackward.apply(rows))


class ZeroGate(nn.Module):
    """Adds the mean of all tokens times a gate that is 0 at first, as adapters do: only its gradient tells."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(32))

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden[:, 0] + self.gate * hidden.mean(1)


def with_pooler(made: Any) -> None:
    made.bert.pooler = MeanPooler()


def with_gate(made: Any) -> None:
    made.bert.pooler = ZeroGate()


def with_convolution(made: Any) -> None:
    made.bert.encoder.layer[1] = Convolution()


def with_batch_norm(made: Any) -> None:
    torch.manual_seed(1)
    made.classifier = nn.Sequential(nn.Linear(32, 16), nn.BatchNorm1d(16), nn.Linear(16, 2))


def with_head(kind: type[nn.Linear]) -> Callable[[Any], None]:
    def change(made: Any) -> None:
        torch.manual_seed(1)
        made.classifier = kind(32, 2)

    return change


def with_layer_twice(made: Any) -> None:
    made.bert.encoder.layer[1] = made.bert.encoder.layer[0]


def with_method_of_the_instance(made: Any) -> None:
    layer = made.bert.encoder.layer[0].output
    layer.forward = lambda *inputs: type(layer).forward(layer, *inputs) * 1.5


def with_hook(made: Any) -> None:
    made.classifier.register_forward_hook(lambda module, args, output: output * 2)


ALTERED: dict[str, tuple[Callable[[Any], None], str]] = {
    "a pooler of all tokens": (with_pooler, "bert.pooler (MeanPooler) has other results"),
    "a gate that is closed": (with_gate, "gradient of bert.pooler.gate"),
    "a convolution over tokens": (with_convolution, "bert.encoder.layer.1 (Convolution) has other results"),
    "batch statistics": (with_batch_norm, "classifier.1 (BatchNorm1d) keeps statistics"),
    "a head that mixes rows": (with_head(Mixing), "classifier (Mixing) has other results"),
    "a head whose gradient counts rows": (with_head(CountingGradient), "the gradient of"),
    "a layer in two places": (with_layer_twice, "bert.encoder.layer.1 (BertLayer) is bert.encoder.layer.0 too"),
    "a method of an instance": (with_method_of_the_instance, "forward of bert.encoder.layer.0.output (BertOutput)"),
    "a hook": (with_hook, "a hook of your own on classifier (Linear)"),
}


def losses(side: str, folder: Path, change: Callable[[Any], Any], **settings: Any) -> tuple[list[float], Any]:
    """Train on `model()` after `change`; return the losses, and the Trainer."""
    made = model()
    change(made)
    trainer = trainer_of(side, folder / side, settings, {"model": made})
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line], trainer


@pytest.mark.parametrize("name", ALTERED)
def test_an_altered_model_trains_to_the_stock_numbers_and_the_reason_is_said(name: str, tmp_path: Path) -> None:
    change, reason = ALTERED[name]
    stock, _ = losses(STOCK, tmp_path, change, eval_strategy="steps")
    ours, trainer = losses(OURS, tmp_path, change, eval_strategy="steps")
    assert ours == pytest.approx(stock, rel=1e-5)
    assert reason in " ".join(trainer.padded_reasons)


@pytest.fixture
def doubled_loss() -> Iterator[None]:
    """A class whose forward was replaced by one that pretends to be the old one."""
    own = BertForSequenceClassification.forward

    @functools.wraps(own)
    def forward(self: Any, *args: Any, **named: Any) -> Any:
        found = own(self, *args, **named)
        found.loss = None if found.loss is None else 2 * found.loss
        return found

    BertForSequenceClassification.forward = forward
    yield
    BertForSequenceClassification.forward = own


@pytest.mark.usefixtures("doubled_loss")
def test_a_replaced_class_forward_is_called(tmp_path: Path) -> None:
    (stock, _), (ours, trainer) = (losses(side, tmp_path, lambda made: None) for side in (STOCK, OURS))
    assert ours == pytest.approx(stock, rel=1e-5)
    assert trainer.padded_reasons == ["BertForSequenceClassification.forward was replaced"]


@pytest.mark.usefixtures("doubled_loss")
def test_the_proof_itself_finds_another_loss(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in ("ftsys.train.trainer.packing", "ftsys.train.trainer.packing_rules"):
        monkeypatch.setattr(f"{module}.why_altered", lambda model: None)
    _, trainer = losses(OURS, tmp_path, lambda made: None)
    assert trainer.padded_reasons == ["the model's loss is not the mean over its examples"]


def test_a_label_smoother_of_ones_own_smooths(tmp_path: Path) -> None:
    found = []
    for side in (STOCK, OURS):
        trainer = trainer_of(side, tmp_path / side, {}, {})
        trainer.label_smoother = LabelSmoother(epsilon=0.3)
        trainer.train()
        found.append([line["loss"] for line in trainer.state.log_history if "loss" in line])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_a_hook_sees_the_rows_of_predict_in_their_order(tmp_path: Path) -> None:
    made, caught = model(), []
    made.bert.pooler.register_forward_hook(lambda module, args, output: caught.append(output))
    predicted = trainer_of(OURS, tmp_path, {}, {"model": made}).predict(data(13)).predictions
    with torch.no_grad():
        from_hook = made.classifier(torch.cat(caught)).numpy()
    assert np.allclose(from_hook, predicted, atol=1e-6)


def test_the_proof_leaves_no_trace(tmp_path: Path) -> None:
    made, split = model(dropout=0.1), split_of(tmp_path)
    made.register_buffer("calls", torch.zeros(1))
    own = made.bert.pooler.forward
    made.bert.pooler.forward = lambda hidden: (made.calls.add_(1), own(hidden))[1]
    made.train().bert.encoder.eval()
    flags = [module.training for module in made.modules()]
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert why_unproven(made, PackedView(made), *proof_batches(split, 64, CPU, 0), with_loss=True) is None
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in made.modules()] == flags
    assert made.calls == 0
    assert all(weight.grad is None for weight in made.parameters())


def split_of(folder: Path) -> Any:
    trainer = trainer_of(OURS, folder, {}, {})
    return trainer.parts.data_path.split_to_train_on(trainer)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_an_unaltered_model_is_proved_in_every_type(dtype: torch.dtype, tmp_path: Path) -> None:
    made, split = model().to(dtype), split_of(tmp_path)
    assert why_unproven(made, PackedView(made), *proof_batches(split, 64, CPU, 0), with_loss=True) is None
    made.bert.pooler = MeanPooler()
    reason = why_unproven(made, PackedView(made), *proof_batches(split, 64, CPU, 0), with_loss=True)
    assert reason == "bert.pooler (MeanPooler) has other results for packed rows than for padded ones"


def test_the_rows_of_the_proof_end_with_their_last_token(tmp_path: Path) -> None:
    """A decoder's head may read that token, or pass over it: on every device the proof has to see which."""
    split = split_of(tmp_path)
    rows = split.gather(np.arange(len(split)))
    ends = set(rows.tokens[rows.cu_seqlens[1:] - 1].tolist())
    for budget in (6, 12, 64):
        packed, padded = proof_batches(split, budget, CPU, 0)
        lengths_S = padded.attention_mask_SL.sum(1)
        assert set(padded.input_ids_SL[torch.arange(len(lengths_S)), lengths_S - 1].tolist()) <= ends
        assert set(packed.input_ids_T[packed.cu_seqlens[1:-1] - 1].tolist()) <= ends
        assert (lengths_S.sum() <= budget).all()


def test_a_layer_that_raises_is_named(tmp_path: Path) -> None:
    class Strict(nn.Module):
        def forward(self, hidden: Tensor) -> Tensor:
            if hidden.shape[1] < 2:
                raise KeyError("too short")
            return hidden[:, 0]

    made, split = model(), split_of(tmp_path)
    made.bert.pooler = Strict()
    reason = why_unproven(made, PackedView(made), *proof_batches(split, 64, CPU, 0), with_loss=False)
    assert reason == "bert.pooler (Strict) does not take packed rows: KeyError: 'too short'"


def test_one_proof_for_a_model_and_one_more_after_a_module_was_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = []
    monkeypatch.setattr("ftsys.train.trainer.packing.why_unproven", lambda *args, **named: counted.append(1))
    trainer = trainer_of(OURS, tmp_path, {"eval_strategy": "steps"}, {})
    trainer.train()
    trainer.predict(data(3))
    assert len(counted) == 1
    trainer.model.classifier = nn.Linear(32, 2)
    trainer.predict(data(3))
    assert len(counted) == 2


def test_known_functions_are_told_by_their_module() -> None:
    assert alterations.why_altered(model()) is None
