"""Tests that a model is as stock training leaves it: hooks, classes, attributes, attention, configuration and files.

A row of a table is a case: a model or setting, and what is done with it. Add a row for a case of your own.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, TrainerCallback

from tests.parity.models.tiny_models import small_model
from tests.parity.trainer.sides import BASE, CLASSES, OURS, STOCK, accuracy, data, model, tokenizer


def state(made: PreTrainedModel) -> dict[str, Any]:
    """Return everything of a model that is not the value of a weight."""
    configs = {
        f"config {name}": (module.config.to_dict(), module.config._attn_implementation)
        for name, module in made.named_modules()
        if isinstance(module, PreTrainedModel)
    }
    weights = {name: (weight.dtype, weight.requires_grad, weight.shape) for name, weight in made.named_parameters()}
    return {name: _state(module) for name, module in made.named_modules()} | configs | weights


def _state(module: nn.Module) -> tuple[Any, ...]:
    # A hook's key is a number that no two hooks of a process share.
    tables = {
        name: len(value) if "hooks" in name else sorted(value)
        for name, value in vars(module).items()
        if isinstance(value, dict)
    }
    plain = {name: str(value) for name, value in vars(module).items() if isinstance(value, bool | int | str | float)}
    return type(module), sorted(vars(module)), tables, plain


class Fails(TrainerCallback):
    """Fails in the second step."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 2:
            raise OSError("as asked")


def no_metrics(found: Any) -> dict[str, float]:
    raise OSError("as asked")


def trained(trainer: Any) -> None:
    trainer.train()


def evaluated(trainer: Any) -> None:
    trainer.evaluate()


def predicted(trainer: Any) -> None:
    trainer.predict(data(10, seed=2))


def trained_and_failed(trainer: Any) -> None:
    trainer.add_callback(Fails())
    with pytest.raises(OSError, match="as asked"):
        trainer.train()


def evaluated_and_failed(trainer: Any) -> None:
    trainer.compute_metrics = no_metrics
    with pytest.raises(OSError, match="as asked"):
        trainer.evaluate()


def trained_twice(trainer: Any) -> None:
    trainer.train()
    trainer.args.max_steps = 5
    trainer.train()


CASES: dict[str, tuple[str, dict[str, Any], Callable[[Any], None]]] = {
    "train": ("bert", {}, trained),
    "train twice": ("bert", {}, trained_twice),
    "train, raising": ("bert", {}, trained_and_failed),
    "evaluate": ("bert", {}, evaluated),
    "evaluate, raising": ("bert", {}, evaluated_and_failed),
    "predict": ("bert", {}, predicted),
    "evaluations within training": ("bert", {"eval_strategy": "steps", "eval_steps": 1}, trained),
    "recomputation": ("bert", {"gradient_checkpointing": True}, trained),
    "autocast": ("bert", {"bf16": True}, trained),
    "noise": ("bert", {"neftune_noise_alpha": 5.0}, trained),
    "evaluated in bf16": ("bert", {"bf16_full_eval": True}, predicted),
    "replaced attention modules": ("mpnet", {}, trained),
    "replaced encoder and convolution": ("deberta-v2", {}, predicted),
    "local attention": ("modernbert-mean", {}, trained),
    "a decoder": ("llama", {}, predicted),
    "shared layers": ("albert", {}, trained),
}


def made(variant: str) -> PreTrainedModel:
    return model() if variant == "bert" else small_model(variant, 2).float()


def trainer_on(side: str, used: PreTrainedModel, folder: Path, settings: dict[str, Any]) -> Any:
    kind, arguments = CLASSES[side]
    return kind(
        model=used,
        args=arguments(str(folder), **(BASE | settings)),
        train_dataset=data(12),
        eval_dataset=data(10, seed=1),
        processing_class=tokenizer(),
        compute_metrics=accuracy,
    )


@pytest.mark.parametrize(("variant", "settings", "act"), list(CASES.values()), ids=list(CASES))
def test_a_model_is_as_the_stock_trainer_leaves_it(
    variant: str, settings: dict[str, Any], act: Callable[[Any], None], tmp_path: Path
) -> None:
    found, saved = {}, {}
    for side in (STOCK, OURS):
        used = made(variant)
        trainer = trainer_on(side, used, tmp_path / side, settings)
        act(trainer)
        found[side] = state(used)
        trainer.save_model(str(tmp_path / side / "saved"))
        saved[side] = (tmp_path / side / "saved" / "config.json").read_text()
    different = {name for name in found[STOCK] if found[STOCK][name] != found[OURS].get(name)}
    assert {name: (found[STOCK][name], found[OURS].get(name)) for name in different} == {}
    assert found[STOCK].keys() == found[OURS].keys()
    assert saved[STOCK] == saved[OURS]


@pytest.mark.parametrize("asked", ["eager", "sdpa"])
def test_a_models_own_attention_is_there_after_training_and_in_callbacks(asked: str, tmp_path: Path) -> None:
    used = model()
    used.set_attn_implementation(asked)
    row, seen = {"input_ids": torch.tensor([[3, 4, 5]])}, []

    class Looks(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append(used(**row, output_attentions=True).attentions or ())

    trainer = trainer_on(OURS, used, tmp_path, {})
    trainer.add_callback(Looks())
    trainer.train()
    seen.append(used(**row, output_attentions=True).attentions or ())
    expected = [(1, 4, 3, 3)] * 2 if asked == "eager" else []
    assert [[tuple(m.shape) for m in maps if m is not None] for maps in seen] == [expected] * 4
    assert used.config._attn_implementation == asked
    assert trainer.padded_reasons == []


def test_attention_maps_after_training_are_those_of_the_saved_model(tmp_path: Path) -> None:
    used = model()
    used.set_attn_implementation("eager")
    trainer = trainer_on(OURS, used, tmp_path, {})
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved", attn_implementation="eager")
    row = {"input_ids": torch.tensor([[3, 4, 5]]), "output_attentions": True}
    for maps, expected in zip(used.eval()(**row).attentions, loaded.eval()(**row).attentions, strict=True):
        torch.testing.assert_close(maps, expected)


def test_two_trainers_of_one_model_do_not_disturb_each_other(tmp_path: Path) -> None:
    """A callback evaluates the model by a Trainer of its own while another one trains it."""
    used, other, scores = model(), model(), []

    class Scores(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            scores.append(trainer_on(OURS, used, tmp_path / "inner", {}).evaluate()["eval_loss"])
            used.train()

    trainer, alone = trainer_on(OURS, used, tmp_path / "a", {}), trainer_on(OURS, other, tmp_path / "b", {})
    trainer.add_callback(Scores())
    trainer.train()
    alone.train()
    assert len(scores) == 3
    assert [line.get("loss") for line in trainer.state.log_history][:3] == pytest.approx(
        [line.get("loss") for line in alone.state.log_history][:3]
    )
    assert state(used) == state(other)


def test_a_copy_made_while_training_is_taken_over_by_its_own_trainer(tmp_path: Path) -> None:
    copies: list[Any] = []

    class Copies(TrainerCallback):
        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            copies.append(copy.deepcopy(kwargs["model"]))

    used = model()
    trainer = trainer_on(OURS, used, tmp_path / "a", {})
    trainer.add_callback(Copies())
    trainer.train()
    of_copy = trainer_on(OURS, copies[0], tmp_path / "b", {}).predict(data(10, seed=2))
    np.testing.assert_allclose(of_copy.predictions, trainer.predict(data(10, seed=2)).predictions, rtol=1e-6)
    assert state(copies[0]) == state(used)
