"""Checkpoints of the drop-in Trainer: where the stock ones lie, without a pickle, and good for going on from."""

import json
import logging
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
import transformers
from huggingface_hub.utils import filter_repo_objects
from transformers import TrainerCallback

from ftsys.errors import CheckpointError, StorageError
from ftsys.train.checkpoint.catalog import verify_checkpoint
from ftsys.train.trainer.arguments import TrainingArguments
from ftsys.train.trainer.checkpointers import stock_layout
from tests.parity.trainer.sides import OURS, STOCK, model, tokenizer, trainer_of

SETTINGS: dict[str, Any] = {"max_steps": 7, "save_strategy": "steps", "save_steps": 2, "learning_rate": 1e-3}
CUT_AT = 4
FILES = {
    "config.json", "manifest.json", "model.safetensors", "optimizer.safetensors", "rng.json", "state.json",
    "tokenizer.json", "tokenizer_config.json", "trainer_state.json", "training_args.json",
}  # fmt: skip


class StopAt(TrainerCallback):
    """Ends training after a step, as a job's time limit does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step == self.step


def run(
    side: str, folder: Path, stop: int | None = None, resume: Any = None, dropout: float = 0.0, **settings: Any
) -> Any:
    """A Trainer that has trained to step `stop` or to the end."""
    callbacks = [StopAt(stop)] if stop else []
    trainer = trainer_of(side, folder, SETTINGS | settings, {"model": model(dropout), "callbacks": callbacks})
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def losses(trainer: Any) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in trainer.state.log_history if "loss" in line}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"packing": False},
        {"optim": "sgd"},
        {"gradient_accumulation_steps": 2},
        {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps"},
        {"save_total_limit": 1},
    ],
    ids=str,
)
def test_a_run_that_is_cut_goes_on_bit_for_bit(settings: dict[str, Any], tmp_path: Path) -> None:
    whole = run(OURS, tmp_path / "whole", dropout=0.1, **settings)
    run(OURS, tmp_path / "cut", stop=CUT_AT, dropout=0.1, **settings)
    resumed = run(OURS, tmp_path / "cut", resume=True, dropout=0.1, **settings)
    assert resumed.state.global_step == 7
    assert losses(resumed) == losses(whole)
    weights = whole.model.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in resumed.model.state_dict().items())


def test_a_checkpoint_has_the_stock_files_and_no_pickle(tmp_path: Path) -> None:
    trainer = run(OURS, tmp_path)
    folder = tmp_path / "checkpoint-6"
    assert {path.name for path in folder.iterdir()} == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-2",
        "checkpoint-4",
        "checkpoint-6",
        "checkpoint-7",
    ]
    assert verify_checkpoint(folder) == []
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "checkpoint-7")
    weights = trainer.model.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in loaded.state_dict().items())
    assert transformers.TrainerState.load_from_json(str(folder / "trainer_state.json")).global_step == 6


@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 2}], ids=str)
def test_a_stock_checkpoint_is_gone_on_from(settings: dict[str, Any], tmp_path: Path) -> None:
    """The steps before come from the stock Trainer, those after from ours: one curve, at its loss scale."""
    whole = run(OURS, tmp_path / "whole", **settings)
    model_class = transformers.BertForSequenceClassification
    model_class.accepts_loss_kwargs = False  # what the stock Trainer needs for the right scale
    try:
        run(STOCK, tmp_path / "cut", stop=CUT_AT, **settings)
    finally:
        del model_class.accepts_loss_kwargs
    assert (tmp_path / "cut/checkpoint-4/optimizer.pt").exists()
    resumed = run(OURS, tmp_path / "cut", resume=str(tmp_path / "cut/checkpoint-4"), **settings)
    assert losses(resumed) == pytest.approx(losses(whole), rel=1e-5)


def test_the_stock_trainer_goes_on_from_our_weights(tmp_path: Path) -> None:
    cut = run(OURS, tmp_path, stop=CUT_AT)
    resumed = run(STOCK, tmp_path, resume=True, max_steps=CUT_AT + 1)
    assert resumed.state.global_step == CUT_AT + 1
    assert list(losses(resumed).items())[:CUT_AT] == list(losses(cut).items())


def test_the_newest_sound_checkpoint_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = run(OURS, tmp_path / "whole")
    run(OURS, tmp_path / "cut", stop=CUT_AT)
    damaged = tmp_path / "cut/checkpoint-4/optimizer.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    with pytest.raises(CheckpointError, match=r"checkpoint-4' is damaged: .*optimizer.safetensors"):
        run(OURS, tmp_path / "cut", resume=str(damaged.parent))
    with caplog.at_level(logging.WARNING, "ftsys"):
        resumed = run(OURS, tmp_path / "cut", resume=True)
    assert "skipped" in caplog.text
    assert losses(resumed) == losses(whole)


def test_the_best_model_is_loaded_at_the_end(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "eval_strategy": "steps",
        "eval_steps": 2,
        "load_best_model_at_end": True,
        "learning_rate": 1e-2,
    }
    found = {}
    for side in (STOCK, OURS):
        trainer = run(side, tmp_path / side, save_total_limit=1, **settings)
        found[side] = trainer
        assert Path(trainer.state.best_model_checkpoint).parent == tmp_path / side
    stock, ours = found[STOCK], found[OURS]
    assert ours.state.best_global_step == stock.state.best_global_step
    weights = stock.model.state_dict()
    assert all(torch.allclose(weights[k], tensor, atol=1e-4) for k, tensor in ours.model.state_dict().items())
    assert sorted(p.name for p in (tmp_path / OURS).iterdir()) == sorted(p.name for p in (tmp_path / STOCK).iterdir())


class Arguments(TrainerCallback):
    """Keeps the two arguments that others are while packed steps are trained."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, bool]] = []

    def _see(self, event: str, args: Any) -> None:
        self.seen.append((event, args.gradient_accumulation_steps, args.logging_nan_inf_filter))

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._see("begin", args)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._see("step", args)


def test_the_arguments_that_are_written_down_are_those_that_were_given(tmp_path: Path) -> None:
    arguments = Arguments()
    settings = SETTINGS | {"max_steps": 2, "gradient_accumulation_steps": 3}
    trainer = trainer_of(OURS, tmp_path, settings, {"callbacks": [arguments]})
    trainer.train()
    assert arguments.seen == [("begin", 3, True), ("step", 1, False), ("step", 1, False)]
    saved = json.loads((tmp_path / "checkpoint-2/training_args.json").read_text())
    for found in (saved, trainer.args.to_dict()):
        assert (found["gradient_accumulation_steps"], found["logging_nan_inf_filter"]) == (3, True)


def test_only_the_model_is_saved_where_that_is_asked_for(tmp_path: Path) -> None:
    run(OURS, tmp_path, save_only_model=True)
    names = {path.name for path in (tmp_path / "checkpoint-2").iterdir()}
    assert names == FILES - {"manifest.json", "optimizer.safetensors", "rng.json", "state.json"}


class Counting(torch.optim.SGD):
    """An optimizer whose state is more than tensors and numbers."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter].setdefault("history", []).append(1)
        return super().step(closure)


def test_a_state_that_ours_cannot_hold_is_saved_the_stock_way(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = {"optimizer_cls_and_kwargs": (Counting, {"lr": 0.1})}
    with caplog.at_level(logging.WARNING, "ftsys"):
        trainer_of(OURS, tmp_path, SETTINGS, options).train()
    told = [record.getMessage() for record in caplog.records if "stock format" in record.getMessage()]
    assert told == ["checkpoints in the stock format, because Counting keeps 'history' as a list"]
    assert (tmp_path / "checkpoint-6/optimizer.pt").exists()
    resumed = trainer_of(OURS, tmp_path, SETTINGS | {"max_steps": 8}, options)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 8


class TwoWeights(torch.optim.SGD):
    """An optimizer that evaluates other weights than it trains, as those of schedulefree."""

    def train(self) -> None:
        """Put the weights that are trained into the model."""

    def eval(self) -> None:
        """Put the weights that are evaluated into the model."""


def test_a_state_with_two_weights_is_saved_the_stock_way(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "ftsys"):
        trainer_of(OURS, tmp_path, SETTINGS, {"optimizer_cls_and_kwargs": (TwoWeights, {"lr": 0.1})}).train()
    assert "in the stock format, because TwoWeights evaluates other weights than it trains" in caplog.text
    assert (tmp_path / "checkpoint-6/optimizer.pt").exists()


def test_a_save_that_fails_leaves_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path, facts: Any) -> None:
        raise OSError(28, "No space left on device")

    run(OURS, tmp_path, stop=2)
    monkeypatch.setattr(stock_layout, "write_manifest", full)
    with pytest.raises(StorageError, match="the disk is full"):
        run(OURS, tmp_path, resume=True)
    assert [path.name for path in tmp_path.glob("checkpoint-*[0-9]")] == ["checkpoint-2"]
    monkeypatch.undo()
    run(OURS, tmp_path, resume=True)
    assert {path.name for path in tmp_path.iterdir()} == {f"checkpoint-{step}" for step in (2, 4, 6, 7)}


def test_the_same_is_pushed_and_nothing_that_is_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = MagicMock()
    hub.create_repo.return_value.repo_id = "someone/model"
    monkeypatch.setattr(transformers.trainer, "hf_api", lambda: hub)
    pushed = {}
    for side in (STOCK, OURS):
        run(side, tmp_path / side, push_to_hub=True, hub_strategy="checkpoint", hub_always_push=True)
        calls = [call.kwargs for call in hub.upload_folder.call_args_list]
        pushed[side] = [(call["commit_message"], call.get("path_in_repo")) for call in calls]
        hub.upload_folder.reset_mock()
    assert pushed[OURS] == pushed[STOCK]
    written_now = f"{stock_layout.UNFINISHED}checkpoint-6/model.safetensors"
    assert list(filter_repo_objects([written_now], ignore_patterns=calls[0]["ignore_patterns"])) == []


def test_a_checkpoint_set_aside_comes_back_where_a_link_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-3.old").mkdir()
    (tmp_path / "checkpoint-3").symlink_to("nowhere")
    stock_layout._begin(tmp_path / f"{stock_layout.UNFINISHED}checkpoint-6")
    assert (tmp_path / "checkpoint-3").is_dir()


@pytest.mark.parametrize(("resume", "text"), [(True, "No valid checkpoint found"), ("nowhere", "Can't find a valid")])
def test_a_checkpoint_that_is_not_there_is_the_stock_error(resume: Any, text: str, tmp_path: Path) -> None:
    for side in (STOCK, OURS):
        with pytest.raises(ValueError, match=text):
            run(side, tmp_path / side, resume=resume)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    run(OURS, tmp_path, stop=CUT_AT)
    other = trainer_of(OURS, tmp_path, SETTINGS, {"model": model(num_labels=3), "processing_class": tokenizer()})
    with pytest.raises(CheckpointError, match=r"'classifier.weight' has shape \(2, 32\) in the checkpoint"):
        other.train(resume_from_checkpoint=True)


@pytest.mark.parametrize("settings", [{}, {"lr_scheduler_type": "cosine", "warmup_steps": 3, "weight_decay": 0.1}])
def test_the_stock_trainer_goes_on_from_ours(settings: dict[str, Any], tmp_path: Path) -> None:
    alone = run(STOCK, tmp_path / "alone", **settings)
    run(OURS, tmp_path / "ours", stop=CUT_AT, save_stock_state=True, **settings)
    checkpoint = tmp_path / "ours" / f"checkpoint-{CUT_AT}"
    assert {path.name for path in checkpoint.iterdir()} == FILES | {"optimizer.pt", "scheduler.pt"}
    resumed = run(STOCK, tmp_path / "ours", resume=str(checkpoint), **settings)
    assert losses(resumed) == pytest.approx(losses(alone), rel=1e-5)
    rates = [[line["learning_rate"] for line in t.state.log_history if "loss" in line] for t in (alone, resumed)]
    assert rates[0] == rates[1]
    states = [trainer.optimizer.state_dict()["state"] for trainer in (alone, resumed)]
    assert states[0].keys() == states[1].keys()
    for index, moments in states[0].items():
        for name, tensor in moments.items():
            torch.testing.assert_close(states[1][index][name], tensor, rtol=1e-4, atol=1e-7)
    for name, weight in alone.model.named_parameters():
        torch.testing.assert_close(resumed.model.get_parameter(name), weight, rtol=1e-4, atol=1e-6)


def test_a_stock_state_of_deepspeed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"save_stock_state=True writes torch's optimizer.pt, and DeepSpeed"):
        TrainingArguments(output_dir=str(tmp_path), save_stock_state=True, deepspeed={"bf16": {}})
