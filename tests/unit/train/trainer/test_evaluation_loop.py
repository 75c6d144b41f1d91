"""Tests an evaluation's output on a small model: what it keeps, what it computes, and which model it takes."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ftsys.data.batching.loader import EvaluationLoader
from ftsys.data.store.reader import Store, StoreSplit
from ftsys.train.trainer.evaluation_loop import Evaluator, _mean
from ftsys.train.trainer.hooks import RunHooks
from ftsys.train.trainer.predictions import EvaluationStopped
from tests.distributed.tiny_run import ROWS, make_store


class FirstToken(nn.Module):
    """Takes each row's first token as a logit, and notes in which mode it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.modes: list[bool] = []

    def forward(self, input_ids: torch.Tensor, **_: Any) -> SimpleNamespace:
        self.modes.append(self.training)
        first = input_ids[:, 0] * self.scale.float()
        return SimpleNamespace(logits=torch.stack([50 - first, first - 50], 1))


class Prepared:
    """Notes calls, as accelerate and a Trainer get them."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._models: list[nn.Module] = []

    def prepare_model(self, model: nn.Module, evaluation_mode: bool = False) -> None:
        self.calls.append(("prepare", evaluation_mode))
        self._models.append(model)


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StoreSplit]:
    return Store.open(make_store(tmp_path_factory.mktemp("stores"))).splits


def trainer_of(**changed: Any) -> Any:
    """Return the parts of a Trainer that an evaluation uses."""
    accelerator, steps = Prepared(), list[int]()
    values: dict[str, Any] = {
        "model": FirstToken(),
        "optimizer": None,
        "deepspeed": None,
        "accelerator": accelerator,
        "is_in_train": False,
        "compute_metrics": lambda found: {"rows": len(found.label_ids)},
        "preprocess_logits_for_metrics": None,
        "compute_loss_context_manager": torch.no_grad,
        "state": SimpleNamespace(global_step=3),
        "control": None,
        "steps": steps,
        "callback_handler": SimpleNamespace(on_prediction_step=lambda *_: steps.append(1), eval_dataloader=None),
        "_move_model_to_device": lambda _, device: accelerator.calls.append(("move", device.type)),
        "args": SimpleNamespace(
            prediction_loss_only=False,
            label_smoothing_factor=0.5,
            device=torch.device("cpu"),
            include_for_metrics=[],
            fp16_full_eval=False,
            bf16_full_eval=False,
            logging_nan_inf_filter=True,
        ),
    }
    return SimpleNamespace(**{**values, **changed})


def evaluator_of(progress: list[tuple[str, int, int]] | None = None) -> tuple[Evaluator, list[float]]:
    pauses: list[float] = []
    hooks = RunHooks(on_evaluation_progress=lambda *done: progress.append(done) if progress is not None else None)
    packing: Any = SimpleNamespace(view=None)
    meter: Any = SimpleNamespace(pause=pauses.append)
    return Evaluator(packing, meter, hooks, lambda args: args.logging_nan_inf_filter), pauses


def loader_of(split: StoreSplit) -> EvaluationLoader:
    return EvaluationLoader(split, 60, 0, 1, packed=False)


def test_an_evaluation_has_predictions_labels_and_metrics(splits: dict[str, StoreSplit]) -> None:
    progress: list[tuple[str, int, int]] = []
    (evaluator, pauses), trainer, loader = evaluator_of(progress), trainer_of(), loader_of(splits["validation"])
    trainer.model.train()
    output = evaluator.run(trainer, loader, None, "eval")
    rows = ROWS["validation"]
    firsts = np.array([splits["validation"][index]["input_ids"][0] for index in range(rows)])
    assert isinstance(output.predictions, np.ndarray)
    assert output.predictions[:, 1].tolist() == (firsts - 50.0).tolist()
    assert isinstance(output.label_ids, np.ndarray)
    assert (output.label_ids.tolist(), output.num_samples) == ((firsts % 2).tolist(), rows)
    assert output.metrics is not None
    margins = np.where(firsts % 2 == 1, -1, 1) * (firsts - 50.0) * 2
    expected = np.log1p(np.exp(np.minimum(margins, 700)))
    assert output.metrics == {"eval_rows": rows, "eval_loss": pytest.approx(float(expected.mean()), rel=1e-5)}
    assert set(trainer.model.modes) == {False}
    assert trainer.callback_handler.eval_dataloader is loader
    assert len(trainer.steps) == len(loader) == len(progress)
    assert progress[-1] == ("validation", rows, rows)
    assert pauses == [evaluator.seconds]
    assert 0 < evaluator.seconds < 1000


def test_seconds_add_up(splits: dict[str, StoreSplit]) -> None:
    evaluator, pauses = evaluator_of()
    assert evaluator.seconds == 0
    for _ in range(2):
        evaluator.run(trainer_of(), loader_of(splits["validation"]), None, "eval")
    assert evaluator.seconds == pytest.approx(sum(pauses))
    assert min(pauses) > 0


@pytest.mark.parametrize("by_argument", [True, False])
def test_losses_alone_are_returned_without_arrays(splits: dict[str, StoreSplit], by_argument: bool) -> None:
    trainer = trainer_of()
    trainer.args.prediction_loss_only = not by_argument
    output = evaluator_of()[0].run(trainer, loader_of(splits["validation"]), True if by_argument else None, "eval")
    assert (output.predictions, output.label_ids) == (None, None)
    assert output.metrics is not None
    assert set(output.metrics) == {"eval_loss"}
    assert output.num_samples == ROWS["validation"]


def test_a_split_without_labels_has_predictions_alone(splits: dict[str, StoreSplit]) -> None:
    output = evaluator_of()[0].run(trainer_of(), loader_of(splits["test"]), None, "test")
    assert (output.label_ids, output.metrics) == (None, {})
    assert np.shape(output.predictions) == (ROWS["test"], 2)


def test_a_split_without_labels_is_preprocessed_without_them(splits: dict[str, StoreSplit]) -> None:
    given: list[Any] = []

    def preprocess(logits: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        given.append(labels)
        return logits[:, :1]

    trainer = trainer_of(preprocess_logits_for_metrics=preprocess)
    output = evaluator_of()[0].run(trainer, loader_of(splits["test"]), None, "test")
    assert given == [None]
    assert np.shape(output.predictions) == (ROWS["test"], 1)


def test_logits_are_preprocessed_with_their_labels(splits: dict[str, StoreSplit]) -> None:
    seen: list[Any] = []

    def metrics(found: Any) -> dict[str, Any]:
        seen.append(found)
        return {"own_loss": 1.0, "eval_kept": np.float32(2.0)}

    trainer = trainer_of(
        preprocess_logits_for_metrics=lambda logits, labels: torch.cat([logits, labels[:, None]], 1),
        compute_metrics=metrics,
    )
    trainer.args.include_for_metrics = ["loss"]
    output = evaluator_of()[0].run(trainer, loader_of(splits["validation"]), None, "eval")
    (found,) = seen
    assert found.predictions.shape == (ROWS["validation"], 3)
    assert found.predictions[:, 2].tolist() == found.label_ids.tolist()
    assert found.losses.shape == (ROWS["validation"],)
    assert output.metrics is not None
    assert output.metrics.keys() == {"eval_own_loss", "eval_kept", "eval_loss"}
    assert type(output.metrics["eval_kept"]) is float


def test_losses_are_given_to_metrics_only_where_they_are_asked_for(splits: dict[str, StoreSplit]) -> None:
    seen: list[Any] = []

    def metrics(found: Any) -> dict[str, float]:
        seen.append(found)
        return {"loss": 7.0}

    trainer = trainer_of(compute_metrics=metrics)
    output = evaluator_of()[0].run(trainer, loader_of(splits["validation"]), None, "eval")
    assert seen[0].losses is None
    assert output.metrics == {"eval_loss": 7.0}, "a user's own loss replaces ours"


def test_without_metrics_there_is_the_loss(splits: dict[str, StoreSplit]) -> None:
    output = evaluator_of()[0].run(trainer_of(compute_metrics=None), loader_of(splits["validation"]), False, "eval")
    assert output.metrics is not None
    assert set(output.metrics) == {"eval_loss"}


def test_predictions_are_current_until_the_weights_change(splits: dict[str, StoreSplit]) -> None:
    (evaluator, _), trainer = evaluator_of(), trainer_of()
    assert evaluator.is_current(trainer, "validation") is False
    evaluator.run(trainer, loader_of(splits["validation"]), None, "eval")
    assert evaluator.is_current(trainer, "validation") is True
    assert evaluator.predictions["validation"].logits.shape == (ROWS["validation"], 2)
    evaluator.weights_replaced()
    assert evaluator.is_current(trainer, "validation") is False
    evaluator.run(trainer, loader_of(splits["validation"]), None, "eval")
    trainer.state.global_step = 4
    assert evaluator.is_current(trainer, "validation") is False


def test_an_owed_evaluation_is_taken_once() -> None:
    (evaluator, _), args = evaluator_of(), SimpleNamespace(eval_on_start=False)
    evaluator.owe(args, "step-000003")
    assert args.eval_on_start is True
    assert (evaluator.take_owed(args), evaluator.take_owed(args)) == ("step-000003", None)
    assert args.eval_on_start is False


def test_a_model_is_prepared_once_and_an_optimizer_with_modes_is_switched(splits: dict[str, StoreSplit]) -> None:
    modes: list[str] = []
    trainer = trainer_of(optimizer=SimpleNamespace(eval=lambda: modes.append("eval")))
    for _ in range(2):
        evaluator_of()[0].run(trainer, loader_of(splits["validation"]), None, "eval")
    assert trainer.accelerator.calls == [("move", "cpu"), ("prepare", True)]
    assert modes == ["eval", "eval"]
    assert 0 <= trainer.model_preparation_time < 1000
    assert round(trainer.model_preparation_time, 4) == trainer.model_preparation_time


@pytest.mark.parametrize(
    ("name", "in_training", "expected"),
    [
        ("bf16_full_eval", False, torch.bfloat16),
        ("fp16_full_eval", False, torch.float16),
        ("bf16_full_eval", True, torch.float32),
        (None, False, torch.float32),
    ],
)
def test_full_evaluations_in_sixteen_bits_cast_the_model_outside_of_training(
    splits: dict[str, StoreSplit], name: str | None, in_training: bool, expected: torch.dtype
) -> None:
    trainer = trainer_of(is_in_train=in_training)
    if name is not None:
        setattr(trainer.args, name, True)
    evaluator_of()[0].run(trainer, loader_of(splits["validation"]), None, "eval")
    assert trainer.model.scale.dtype == expected


def test_an_engine_of_deepspeed_is_called_itself(splits: dict[str, StoreSplit]) -> None:
    engine, trainer = FirstToken(), trainer_of()
    trainer.deepspeed = engine
    evaluator_of()[0].run(trainer, loader_of(splits["validation"]), None, "eval")
    assert engine.modes
    assert not trainer.model.modes
    assert trainer.accelerator.calls == []


@pytest.mark.parametrize("stock", [True, False])
def test_data_of_the_users_own_has_the_stock_smoothing_and_preparation_time(
    splits: dict[str, StoreSplit], stock: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = {}
    for smoothing in (0.0, 0.5):
        monkeypatch.setattr(type(splits["validation"]), "stock_semantics", stock)
        trainer = trainer_of()
        trainer.args.label_smoothing_factor = smoothing
        output = evaluator_of()[0].run(trainer, loader_of(splits["validation"]), None, "eval")
        assert output.metrics is not None
        assert ("eval_model_preparation_time" in output.metrics) is stock
        losses[smoothing] = output.metrics["eval_loss"]
    assert (losses[0.0] != losses[0.5]) is stock


@pytest.mark.parametrize(
    ("filtered", "wild", "mean"), [(True, [1], 2.0), (False, [1], np.nan), (True, [0, 1, 2], np.nan)]
)
def test_the_mean_loss_leaves_out_what_is_not_finite_as_the_stock_one(
    filtered: bool, wild: list[int], mean: float
) -> None:
    losses = np.array([1.0, 9.0, 3.0], np.float32)
    losses[wild] = np.nan
    assert _mean(losses, filtered) == pytest.approx(mean, nan_ok=True)


def test_ranks_leave_after_the_same_pack_where_each_pass_gathers_weights(
    splits: dict[str, StoreSplit], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another rank's signal ends this rank's evaluation as well, and before the next pass."""
    (evaluator, _), trainer = evaluator_of(), trainer_of()
    monkeypatch.setattr("ftsys.train.trainer.evaluation_loop.any_rank", lambda own, device: True)
    trainer.model.scale.ds_id, trainer.deepspeed = 0, trainer.model
    seen: list[int] = []
    trainer.callback_handler.on_prediction_step = lambda *_: seen.append(1)
    with pytest.raises(EvaluationStopped):
        evaluator.run(trainer, loader_of(splits["validation"]), None, "eval")
    assert len(seen) == 1
