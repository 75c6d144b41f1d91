"""Each reason for the stock path, said once; and what is wrong with data that would be packed."""

import copy
import logging
import re
from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
import transformers
from transformers import DataCollatorWithPadding

from ftsys.errors import DataError
from ftsys.train.trainer.arguments import TrainingArguments, are_cpu_ranks
from ftsys.train.trainer.packing import KEPT_SPLITS
from ftsys.train.trainer.trainer import Trainer
from tests.parity.trainer.sides import OURS, data, model, rows, tokenizer, trainer_of


def made(folder: Path, options: dict[str, Any] | None = None, **settings: Any) -> Any:
    return trainer_of(OURS, folder, settings, options or {})


def left_tokenizer() -> Any:
    left = copy.copy(tokenizer())
    left.padding_side = "left"
    return left


class OwnForSequenceClassification(type(model())):  # type: ignore[misc]  # whatever class the tiny model has
    """A model of the user's own."""


def own_class(trainer: Any) -> None:
    trainer.model.__class__ = OwnForSequenceClassification


def own_forward(trainer: Any) -> None:
    trainer.model.forward = MethodType(lambda self, **inputs: None, trainer.model)


def own_loss(trainer: Any) -> None:
    trainer.model.loss_function = lambda **inputs: torch.zeros(())


def given(name: str, value: Any) -> Callable[[Any], None]:
    """Set an attribute, deep inside."""

    def change(trainer: Any) -> None:
        *path, last = name.split(".")
        for step in path:
            trainer = getattr(trainer, step)
        setattr(trainer, last, value)

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (given("compute_loss", lambda *inputs: None), "Trainer.compute_loss is your own"),
        (given("_get_train_sampler", lambda: None), "Trainer._get_train_sampler is your own"),
        (given("args.packing", False), "packing=False"),
        (given("data_collator", DataCollatorWithPadding(tokenizer(), return_tensors="np")), "'np' tensors"),
        (given("data_collator", DataCollatorWithPadding(left_tokenizer())), "pads on the left"),
        (given("data_collator", lambda rows: rows), "the collator <lambda> may do anything"),
        (given("compute_loss_func", print), "compute_loss_func forms"),
        (given("args._n_gpu", 2), "one process drives 2 GPUs"),
        (given("args.torch_compile", True), "torch_compile=True"),
        (given("args.use_liger_kernel", True), "use_liger_kernel=True"),
        (given("args.parallelism_config", object()), "the model is sharded"),
        (given("is_model_parallel", True), "several devices"),
        (given("label_names", ["start", "end"]), r"label_names=\['start', 'end'\]"),
        (given("neftune_noise_alpha", 5.0), "NEFTune"),
        (given("args.auto_find_batch_size", True), "auto_find_batch_size"),
        (given("args.accelerator_config.split_batches", True), "accelerator_config"),
        (given("model", torch.nn.Linear(2, 2)), "Linear is not a transformers model"),
        (own_class, "OwnForSequenceClassification is a class of your own"),
        (own_forward, "the model's forward was replaced"),
        (own_loss, "the model's loss function was replaced"),
        (given("model.config.output_hidden_states", True), "hidden states or attentions"),
        (given("model.config.return_dict", False), "returns tuples"),
        (given("model._hf_peft_config_loaded", True), "has adapters"),
        (given("model.config.problem_type", "multi_label_classification"), "'multi_label_classification'"),
        (given("train_dataset", data(4).remove_columns("label")), "no labels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_reason_for_the_stock_path_is_found_and_said_once(
    change: Callable[[Any], None], reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = made(tmp_path)
    change(trainer)
    with caplog.at_level(logging.WARNING, "ftsys"):
        assert trainer.parts.data_path.split_to_train_on(trainer) is None
        assert trainer.parts.data_path.split_to_train_on(trainer) is None
    (told,) = [record.getMessage() for record in caplog.records if record.name == "ftsys"]
    assert re.match("ftsys: (padded batches and )?the stock data path(, unpadded in the model)?, because ", told)
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(told)
    assert trainer.padded_reasons == [trainer.parts.packing.padded_because]


def test_without_a_reason_nothing_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = made(tmp_path)
    with caplog.at_level(logging.WARNING, "ftsys"):
        assert len(trainer.parts.data_path.split_to_train_on(trainer)) == 12
    assert caplog.records == []
    assert (trainer.parts.packing.padded_because, trainer.padded_reasons) == (None, [])


def test_a_data_set_is_read_once_and_a_list_each_time(tmp_path: Path) -> None:
    trainer, listed = made(tmp_path), rows(3)
    data_path = trainer.parts.data_path
    with data_path.evaluating():
        first, second = (data_path.split_to_evaluate(trainer, data(5), "eval") for _ in range(2))
        assert first is second
        before = data_path.split_to_evaluate(trainer, listed, "eval")
        listed[0]["label"] = 1 - listed[0]["label"]
        assert before.labels[0] != data_path.split_to_evaluate(trainer, listed, "eval").labels[0]


def test_data_sets_of_the_trainer_and_the_newest_others_are_kept_as_splits(tmp_path: Path) -> None:
    trainer = made(tmp_path)
    data_path, kept = trainer.parts.data_path, trainer.parts.packing._read
    data_path.split_to_train_on(trainer)
    others = [data(5, seed=seed) for seed in range(KEPT_SPLITS + 2)]
    with data_path.evaluating():
        data_path.split_to_evaluate(trainer, trainer.eval_dataset, "eval")
        for each in (*others, others[-2]):
            data_path.split_to_evaluate(trainer, each, "test")
    held = [trainer.train_dataset, trainer.eval_dataset, *others[-KEPT_SPLITS:-2], others[-1], others[-2]]
    assert [id(known) for known, _ in kept.values()] == [id(each) for each in held]


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"label": 2}, r"row 1 of the training data has label 2, the model's labels are 0 to 1: .*num_labels=3"),
        ({"label": -1}, "row 1 of the training data has label -1"),
        ({"input_ids": [4] * 30}, r"row 1 .* has 30 tokens, the model has 24 positions: .*truncation=True"),
        ({"input_ids": [99, 4]}, "holds token 99, the model knows 40 tokens"),
    ],
)
def test_wrong_data_is_named(changed: dict[str, Any], text: str, tmp_path: Path) -> None:
    wrong = rows(4)
    wrong[1].update(changed)
    plain = [{"input_ids": row["input_ids"], "label": row["label"]} for row in wrong]
    with pytest.raises(DataError, match=text):
        made(tmp_path, {"train_dataset": plain}).train()


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"model": None}, RuntimeError, "requires either a `model` or `model_init`"),
        ({"train_dataset": None}, ValueError, "requires a train_dataset"),
        ({"train_dataset": [{"text": "a"}] * 4}, (ValueError, KeyError), "input_ids"),
        ({"train_dataset": data(4).remove_columns("label")}, ValueError, "did not return a loss"),
        ({"data_collator": 3}, (TypeError, ValueError), "callable|collate"),
        ({"tokenizr": 1}, TypeError, "has no argument 'tokenizr': did you mean 'tokenizer'"),
    ],
    ids=lambda value: str(next(iter(value))) if isinstance(value, dict) else "",
)
def test_the_stock_errors_stay(options: dict[str, Any], kind: Any, text: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=text):
        made(tmp_path, options).train()


def test_the_tokenizer_goes_by_its_old_name_too(tmp_path: Path) -> None:
    arguments = TrainingArguments(str(tmp_path), use_cpu=True)
    with pytest.warns(FutureWarning, match="'tokenizer' is a name of transformers 4: write processing_class"):
        trainer = Trainer(model(), arguments, tokenizer=tokenizer())
    assert trainer.processing_class is trainer.tokenizer is tokenizer()


def test_logging_dir_is_where_the_boards_files_go(tmp_path: Path) -> None:
    with pytest.warns(FutureWarning, match="TENSORBOARD_LOGGING_DIR"):
        arguments = TrainingArguments(
            str(tmp_path), use_cpu=True, report_to="tensorboard", logging_dir=str(tmp_path / "boards"), max_steps=1
        )
    Trainer(model(), arguments, train_dataset=data(4), processing_class=tokenizer()).train()
    assert list((tmp_path / "boards").glob("events.*"))


@pytest.mark.parametrize(
    ("environment", "accelerator", "expected"),
    [
        ({"WORLD_SIZE": "2"}, False, True),
        ({"WORLD_SIZE": "2"}, True, False),
        ({"WORLD_SIZE": "1"}, False, False),
        ({}, False, False),
    ],
)
def test_several_ranks_without_an_accelerator_are_cpu_ranks(
    environment: dict[str, str], accelerator: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: accelerator)
    assert are_cpu_ranks(environment) == expected


def test_stock_arguments_that_leave_each_rank_alone_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = transformers.TrainingArguments(str(tmp_path), report_to="none", use_cpu=True)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.warns(UserWarning, match="each process trains alone on all the data: .*use_cpu=True"):
        Trainer(model(), alone)
