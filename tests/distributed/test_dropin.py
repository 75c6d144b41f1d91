"""A script's own data set on several ranks: the same steps, the same predictions, checkpoints that any world reads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.distributed.worlds import World

STEPS, CUT_AT, EVALUATED = 6, 4, 11
DEEPSPEED: dict[str, Any] = {
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "zero_allow_untested_optimizer": True,
    "zero_force_ds_cpu_optimizer": False,
}


def train(folder: Path, options: dict[str, Any], stop: int | None = None, resume: bool = False) -> dict[str, Any]:
    """Train on 22 rows in steps of 8, dropout on, and predict 11; what this rank sees."""
    from tests.parity.trainer.sides import OURS, data, model, trainer_of
    from tests.parity.trainer.test_checkpoints import StopAt

    settings: dict[str, Any] = {"max_steps": STEPS, "save_strategy": "steps", "save_steps": 2, "learning_rate": 1e-3}
    settings |= {"eval_strategy": "steps", "eval_steps": 3}
    settings |= {key: value for key, value in options.items() if key != "stage"}
    if options.get("stage") is not None:
        from ftsys.train.deepspeed_setup import prepare_deepspeed

        prepare_deepspeed()
        settings["deepspeed"] = DEEPSPEED | {"zero_optimization": {"stage": options["stage"]}}
    called: list[int] = []

    def metrics(found: Any) -> dict[str, float]:
        called.append(len(found.predictions))
        return {"mean": float(found.predictions.mean())}

    given = {"model": model(dropout=0.1), "train_dataset": data(22), "eval_dataset": data(EVALUATED, seed=1)}
    callbacks = [StopAt(stop)] if stop else []
    trainer = trainer_of(OURS, folder, settings, {**given, "callbacks": callbacks, "compute_metrics": metrics})
    trainer.train(resume_from_checkpoint=resume)
    history = trainer.state.log_history
    predicted = trainer.predict(data(EVALUATED, seed=2))
    return {
        "losses": {line["step"]: line["loss"] for line in history if "loss" in line},
        "evaluations": [line["eval_loss"] for line in history if "eval_loss" in line],
        "predictions": predicted.predictions,
        "label_ids": predicted.label_ids,
        "metrics": predicted.metrics["test_mean"],
        "called": len(called),
        "reasons": trainer.padded_reasons,
    }


@pytest.fixture(scope="module")
def alone(world: Callable[[int], World], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found: dict[str, Any] = world(1).run(train, tmp_path_factory.mktemp("alone"), {"per_device_train_batch_size": 8})[0]
    return found


CASES = [
    {"per_device_train_batch_size": 4},
    {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
    {"per_device_train_batch_size": 4, "stage": 2},
]


@pytest.mark.parametrize("options", CASES, ids=str)
def test_two_ranks_give_what_one_gives(
    options: dict[str, Any], world: Callable[[int], World], alone: dict[str, Any], tmp_path: Path
) -> None:
    by_rank = world(2).run(train, tmp_path, options)
    for found in by_rank:
        assert found["reasons"] == []
        assert found["losses"] == pytest.approx(alone["losses"], rel=1e-5)
        assert found["evaluations"] == pytest.approx(alone["evaluations"], rel=1e-5)
        np.testing.assert_allclose(found["predictions"], alone["predictions"], rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(found["label_ids"], alone["label_ids"])
        assert found["metrics"] == by_rank[0]["metrics"]
    assert [found["called"] for found in by_rank] == [alone["called"], 0], "metrics are rank 0's to compute"
    names = {path.name for path in (tmp_path / "checkpoint-4").iterdir()}
    assert {name.rpartition(".")[2] for name in names} == {"json", "safetensors"}


def test_a_run_goes_on_with_another_number_of_ranks(
    world: Callable[[int], World], alone: dict[str, Any], tmp_path: Path
) -> None:
    world(2).run(train, tmp_path, {"per_device_train_batch_size": 4, "stage": 2}, CUT_AT)
    found = world(1).run(train, tmp_path, {"per_device_train_batch_size": 8}, None, True)[0]
    assert found["losses"] == pytest.approx(alone["losses"], rel=1e-5)


def train_own_kind(folder: Path, stage: int | None, packing: bool = True) -> dict[str, Any]:
    """Train on rows of a torch Dataset's own class; returns losses, and the number of packed calls of the model."""
    from unittest.mock import patch

    from ftsys.models.packed import PackedView
    from tests.parity.dropin.test_unpadded import Indexed
    from tests.parity.trainer.sides import OURS, trainer_of

    settings: dict[str, Any] = {"max_steps": 3, "packing": packing}
    if stage is not None:
        from ftsys.train.deepspeed_setup import prepare_deepspeed

        prepare_deepspeed()
        settings["deepspeed"] = DEEPSPEED | {"zero_optimization": {"stage": stage}}
    with patch.object(PackedView, "inputs", autospec=True, side_effect=PackedView.inputs) as packed:
        trainer = trainer_of(OURS, folder, settings, {"train_dataset": Indexed(), "compute_metrics": None})
        trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return {"losses": losses, "packed": packed.call_count}


def test_data_of_the_scripts_own_kind_is_padded_under_deepspeed(world: Callable[[int], World], tmp_path: Path) -> None:
    padded = world(1).run(train_own_kind, tmp_path / "padded", None, False)[0]
    unpadded = world(1).run(train_own_kind, tmp_path / "unpadded", None)[0]
    under = world(1).run(train_own_kind, tmp_path / "under", 1)[0]
    assert (padded["packed"], under["packed"]) == (0, 0)
    assert unpadded["packed"] > 3
    for found in (unpadded, under):
        assert found["losses"] == pytest.approx(padded["losses"], rel=1e-5)


def train_with_hook(folder: Path, when: str) -> dict[str, Any]:
    """Train with a hook on the model of rank 1 alone: put there "before" train(), by a "callback", or "never"."""
    from torch import distributed
    from transformers import TrainerCallback

    from tests.parity.trainer.sides import OURS, data, model, trainer_of

    made, calls = model(), list[int]()

    def put_hook() -> None:
        if distributed.get_rank() == 1:
            made.classifier.register_forward_hook(lambda *given: calls.append(1))

    class AtBegin(TrainerCallback):
        def on_train_begin(self, *event: Any, **more: Any) -> None:
            if when == "callback":
                put_hook()

    settings = {"per_device_train_batch_size": 4, "eval_strategy": "steps", "eval_steps": 1}
    given = {"model": made, "train_dataset": data(24), "eval_dataset": data(EVALUATED, seed=1)}
    trainer = trainer_of(OURS, folder, settings, {**given, "callbacks": [AtBegin()]})
    if when == "before":
        put_hook()
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return {"losses": losses, "reasons": trainer.padded_reasons}


@pytest.mark.parametrize("when", ["before", "callback"])
def test_what_one_rank_cannot_pack_is_padded_on_all(world: Callable[[int], World], tmp_path: Path, when: str) -> None:
    packed = world(2).run(train_with_hook, tmp_path / "packed", "never")[0]
    assert packed["reasons"] == []
    for found in world(2).run(train_with_hook, tmp_path / when, when):
        assert found["reasons"] == ["a hook of your own on classifier (Linear) would see packed rows"]
        assert found["losses"] == pytest.approx(packed["losses"], rel=1e-4)


def train_subclass(folder: Path, batch: int) -> list[float]:
    """Train a subclass of a transformers model in batches of `batch` a rank; returns losses and gradient norms."""
    from transformers import BertForSequenceClassification

    from tests.parity.trainer.sides import OURS, data, model, trainer_of

    class Classifier(BertForSequenceClassification):
        pass

    made: Any = model()
    made.__class__ = Classifier
    settings = {"per_device_train_batch_size": batch}
    trainer = trainer_of(OURS, folder, settings, {"model": made, "train_dataset": data(24)})
    trainer.train()
    return [line[key] for line in trainer.state.log_history if "loss" in line for key in ("loss", "grad_norm")]


def test_a_subclass_has_the_scale_of_its_mean(world: Callable[[int], World], tmp_path: Path) -> None:
    alone = world(1).run(train_subclass, tmp_path / "alone", 8)[0]
    for found in world(2).run(train_subclass, tmp_path / "two", 4):
        assert found == pytest.approx(alone, rel=1e-4)


def broadcasts_buffers(folder: Path, with_statistics: bool) -> bool:
    """Train a step, and tell whether DDP sends the first rank's buffers to the others."""
    from torch import nn

    from tests.parity.trainer.sides import OURS, data, model, trainer_of

    made: Any = model()
    if with_statistics:
        made.classifier = nn.Sequential(nn.BatchNorm1d(32), made.classifier)
    trainer = trainer_of(OURS, folder, {"max_steps": 1}, {"model": made, "train_dataset": data(24)})
    trainer.train()
    return bool(trainer.model_wrapped.broadcast_buffers)


@pytest.mark.parametrize("with_statistics", [False, True])
def test_statistics_of_batches_are_those_of_the_first_rank(
    world: Callable[[int], World], tmp_path: Path, with_statistics: bool
) -> None:
    assert world(2).run(broadcasts_buffers, tmp_path, with_statistics) == [with_statistics] * 2
