"""Several labels a row and class weights, held against transformers' Trainer: a step has all rows, so their order is
the same to both."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from ftsys.data.store.reader import Store
from tests.distributed.tiny_run import ROWS, make_store, make_trainer, tiny_bert

WEIGHTS = (0.3, 4.0)
KINDS: dict[str, tuple[str, int, str]] = {
    "several labels": ("(3,)int8", 3, "multi_label_classification"),
    "weighted classes": ("int64", 2, "single_label_classification"),
}


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Pad rows on the right, as a stock collator does."""
    longest = max(len(row["input_ids"]) for row in rows)
    batch = {
        name: torch.tensor([row[name] + [0] * (longest - len(row[name])) for row in rows])
        for name in ("input_ids", "attention_mask", "token_type_ids")
    }
    return batch | {"labels": torch.tensor([row["labels"] for row in rows])}


def stock_trainer(store: Path, scratch: Path, model: Any, weighted: bool) -> Any:
    loss = nn.CrossEntropyLoss(torch.tensor(WEIGHTS))
    arguments = transformers.TrainingArguments(
        str(scratch),
        use_cpu=True,
        max_steps=4,
        learning_rate=1e-3,
        per_device_train_batch_size=ROWS["train"],
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=3,
    )
    return transformers.Trainer(
        model,
        arguments,
        data_collator=collate,
        train_dataset=Store.open(store).splits["train"],  # its rows are what a collator takes
        compute_loss_func=(lambda outputs, labels, **_: loss(outputs.logits, labels)) if weighted else None,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_losses_gradients_and_weights_are_the_stock_trainers(tmp_path: Path, kind: str) -> None:
    form, labels, problem = KINDS[kind]
    store, weighted = make_store(tmp_path / "store", label_type=form), kind == "weighted classes"
    model = tiny_bert(labels=labels)
    model.config.problem_type = problem
    stock = stock_trainer(store, tmp_path, model, weighted)
    options = {"global_batch_size": ROWS["train"], "micro_tokens": 60, "max_steps": 4}
    given = {"class_weights": WEIGHTS} if weighted else {}
    ours = make_trainer(store, tmp_path, model=tiny_bert(labels=labels), **options, **given)
    stock.train()
    ours.train()
    for name in ("loss", "grad_norm"):
        theirs, found = ([line[name] for line in each.state.log_history if name in line] for each in (stock, ours))
        assert len(found) == 4
        assert found == pytest.approx(theirs, rel=2e-5), name
    expected = dict(stock.model.named_parameters())
    for name, weight in ours.model.named_parameters():
        if not name.endswith("key.bias"):  # its gradient is 0 but for rounding, and Adam scales that up
            torch.testing.assert_close(weight, expected[name], rtol=1e-4, atol=5e-5, msg=name)
