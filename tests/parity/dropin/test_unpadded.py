"""Data, losses and adapters of a script's own: the stock data path, whose padding the model itself leaves out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn
from transformers import DataCollatorWithPadding

from ftsys.models.packed import PackedView
from tests.parity.trainer.sides import CLASSES, OURS, STOCK, data, model, rows, tokenizer, trainer_of

WEIGHTS = torch.tensor([1.0, 3.0])


class Indexed(torch.utils.data.Dataset):
    """Rows of a class of the script's own, as tensors."""

    def __init__(self, count: int = 12) -> None:
        self.rows = rows(count)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {key: torch.tensor(value) for key, value in self.rows[index].items() if key != "text"}


class Streamed(torch.utils.data.IterableDataset):
    """Rows without a number of rows."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return ({key: value for key, value in row.items() if key != "text"} for row in rows(12))


def many_labels(row: dict[str, Any]) -> dict[str, Any]:
    return {"label": [float(row["label"]), float(len(row["input_ids"]) > 9)]}


def weighted(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    return nn.functional.cross_entropy(outputs.logits, labels, weight=WEIGHTS)


def with_loss(base: Any) -> Any:
    class Weighted(base):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **more: Any) -> Any:
            labels = inputs.pop("labels")
            outputs = model(**inputs)
            loss = nn.functional.cross_entropy(outputs.logits, labels, weight=WEIGHTS)
            return (loss, outputs) if return_outputs else loss

    return Weighted


def with_teacher(base: Any) -> Any:
    class Distilled(base):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **more: Any) -> Any:
            outputs = model(**inputs)
            with torch.no_grad():
                target = self.teacher(**inputs).logits.softmax(-1)
            loss = outputs.loss + nn.functional.cross_entropy(outputs.logits, target)
            return (loss, outputs) if return_outputs else loss

        teacher = model(hidden_act="relu").eval()

    return Distilled


def adapted() -> Any:
    made = model()
    torch.manual_seed(1)
    return peft.get_peft_model(made, peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"]))


def frozen() -> Any:
    made = model()
    made.bert.embeddings.requires_grad_(False)
    made.bert.encoder.layer[0].requires_grad_(False)
    return made


def with_float_mask(found: Any) -> Any:
    batch = DataCollatorWithPadding(tokenizer())(found)
    return {**batch, "attention_mask": batch["attention_mask"].float()}


def to_the_longest(row: dict[str, Any]) -> dict[str, Any]:
    taken = {key: row[key] for key in ("input_ids", "token_type_ids", "attention_mask")}
    return dict(tokenizer().pad(taken, padding="max_length", max_length=20))


def transformed() -> Any:
    """The rows of `data`, made tensors when they are read."""
    found = data(12).remove_columns("text")
    found.set_transform(lambda batch: {name: [torch.tensor(value) for value in batch[name]] for name in batch})
    return found


SCRIPTS: dict[str, tuple[dict[str, Any], Any]] = {
    "a torch Dataset": ({"train_dataset": Indexed(), "eval_dataset": Indexed(10)}, None),
    "set_transform": ({"train_dataset": transformed()}, None),
    "a stream": ({"train_dataset": Streamed()}, None),
    "several labels": (
        {
            "model": lambda: model(num_labels=2, problem_type="multi_label_classification"),
            "train_dataset": data(12).map(many_labels),
            "eval_dataset": data(10, seed=1).map(many_labels),
            "compute_metrics": None,
        },
        None,
    ),
    "compute_loss_func": ({"compute_loss_func": weighted}, None),
    "compute_loss of a subclass": ({}, with_loss),
    "a teacher": ({}, with_teacher),
    "LoRA": ({"model": adapted}, None),
    "a mask of float32": ({"data_collator": with_float_mask}, None),
    "a collator of its own": ({"data_collator": lambda found: DataCollatorWithPadding(tokenizer())(found)}, None),
}
PACKED: dict[str, tuple[dict[str, Any], Any]] = {
    "frozen layers": ({"model": frozen}, None),
    "rows padded to the longest": ({"train_dataset": data(12).map(to_the_longest)}, None),
    "set_format torch": ({"train_dataset": data(12).remove_columns("text").with_format("torch")}, None),
}


def trained(side: str, folder: Path, script: tuple[dict[str, Any], Any], **settings: Any) -> tuple[list[float], Any]:
    options, subclass = dict(script[0]), script[1]
    if callable(options.get("model")):
        options["model"] = options["model"]()
    kinds = CLASSES[side]
    try:
        CLASSES[side] = (subclass(kinds[0]), kinds[1]) if subclass else kinds
        trainer = trainer_of(side, folder / side, {"eval_strategy": "steps", "eval_steps": 2} | settings, options)
    finally:
        CLASSES[side] = kinds
    trainer.train()
    keys = ("loss", "eval_loss", "grad_norm")
    return [line[key] for line in trainer.state.log_history for key in keys if key in line], trainer


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tokens of each packed batch."""
    found: list[int] = []
    own = PackedView.inputs

    def inputs(self: Any, input_ids_T: Tensor, *rest: Any, **named: Any) -> Any:
        found.append(len(input_ids_T))
        return own(self, input_ids_T, *rest, **named)

    monkeypatch.setattr(PackedView, "inputs", inputs)
    return found


@pytest.mark.parametrize("name", [*SCRIPTS, *PACKED])
def test_a_script_trains_to_the_stock_numbers_without_padding(name: str, tmp_path: Path, computed: list[int]) -> None:
    script = {**SCRIPTS, **PACKED}[name]
    (stock, _), (ours, trainer) = (trained(side, tmp_path, script) for side in (STOCK, OURS))
    assert ours == pytest.approx(stock, rel=1e-4)
    assert len(computed) > 4  # the proof, and each step
    assert bool(trainer.padded_reasons) == (name in SCRIPTS)


def test_dropout_is_drawn_from_torchs_generator(tmp_path: Path) -> None:
    script = ({"model": lambda: model(dropout=0.3), "train_dataset": Indexed()}, None)
    first, second, other = (
        trained(OURS, tmp_path / str(index), script, seed=seed)[0] for index, seed in enumerate((1, 1, 2))
    )
    assert first == second
    assert first != other
    with_none = trained(OURS, tmp_path / "none", ({"train_dataset": Indexed()}, None), seed=1)[0]
    assert first != with_none


def test_left_padding_and_foreign_inputs_stay_padded(tmp_path: Path, computed: list[int]) -> None:
    left = Indexed()
    for row in left.rows:
        row["input_ids"], row["attention_mask"] = [0, *row["input_ids"]], [0, *row["attention_mask"]]
        row["token_type_ids"] = [0, *row["token_type_ids"]]
    script = ({"train_dataset": left, "eval_dataset": left}, None)
    (stock, _), (ours, _) = (trained(side, tmp_path, script) for side in (STOCK, OURS))
    assert ours == pytest.approx(stock, rel=1e-4)
    assert computed == []


def test_an_altered_model_stays_padded_on_the_stock_path(tmp_path: Path) -> None:
    class MeanPooler(nn.Module):
        def forward(self, hidden: Tensor) -> Tensor:
            return hidden.mean(1)

    def pooled() -> Any:
        made = model()
        made.bert.pooler = MeanPooler()
        return made

    script = ({"model": pooled, "train_dataset": Indexed()}, None)
    (stock, _), (ours, trainer) = (trained(side, tmp_path, script) for side in (STOCK, OURS))
    assert ours == pytest.approx(stock, rel=1e-4)
    assert "bert.pooler (MeanPooler) has other results" in trainer.padded_reasons[-1]


@pytest.mark.parametrize("recomputed", [False, True])
def test_a_loss_that_calls_the_model_twice_is_padded_where_layers_are_computed_again(
    recomputed: bool, tmp_path: Path, computed: list[int]
) -> None:
    """The layers of the first call would be computed again with the dropout of the second."""

    def twice(base: Any) -> Any:
        class Twice(base):
            def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **more: Any) -> Any:
                first, second = model(**inputs), model(**inputs)
                return (first.loss + second.loss, first) if return_outputs else first.loss + second.loss

        return Twice

    options = {"model": lambda: model(dropout=0.3), "train_dataset": Indexed()}
    settings = {"gradient_checkpointing": recomputed, "eval_strategy": "no"}
    trained(OURS, tmp_path, (options, twice), **settings)
    assert bool(computed) != recomputed
