"""An optimizer or a schedule of a script's own is refused where an argument of ours would not reach it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ftsys.train.trainer.arguments import TrainingArguments
from ftsys.train.trainer.trainer import Trainer
from tests.parity.trainer.sides import BASE, data, model


def train_with(folder: Path, with_schedule: bool, **settings: Any) -> Trainer:
    """Train with an optimizer of one's own, and a schedule where that is asked for."""
    made = model()
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0) if with_schedule else None
    arguments = TrainingArguments(str(folder), **(BASE | settings))
    trainer = Trainer(made, arguments, train_dataset=data(12), optimizers=(optimizer, schedule))
    trainer.train()
    return trainer


@pytest.mark.parametrize(
    ("with_schedule", "settings", "text"),
    [
        (False, {"layer_decay": 0.5}, r"layer_decay=0\.5 sets the rates of the optimizer that the Trainer makes"),
        (True, {"layer_decay": 0.5}, r"layer_decay=0\.5 sets the rates"),
        (True, {"master_weights": True}, "master_weights=True replaces the optimizer, and the schedule"),
    ],
)
def test_what_would_have_no_effect_is_refused(
    tmp_path: Path, with_schedule: bool, settings: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        train_with(tmp_path, with_schedule, **settings)


@pytest.mark.parametrize(("with_schedule", "settings"), [(True, {}), (False, {"master_weights": True})], ids=str)
def test_what_has_an_effect_is_taken(tmp_path: Path, with_schedule: bool, settings: dict[str, Any]) -> None:
    trainer = train_with(tmp_path, with_schedule, **settings)
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert lines[0]["learning_rate"] == 1e-2
    before = dict(model().named_parameters())
    assert all(not torch.equal(weight.float(), before[name]) for name, weight in trainer.model.named_parameters())
