"""Tests the callbacks: metrics.jsonl with several attempts, progress, status.json; without training."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from ftsys.errors import RunFolderError
from ftsys.run_folder.claim import claim_run_folder
from ftsys.run_folder.metrics_log import read_metrics
from ftsys.run_folder.status import read_status
from ftsys.train.callbacks.metrics import LINES_KEPT, MetricsLog
from ftsys.train.callbacks.progress import ProgressCallback
from ftsys.train.callbacks.status import StatusCallback

MNLI = ("validation_matched", "validation_mismatched")
IDENTITY = {"seed": 1}


class Clock:
    """A clock that the test advances."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Events:
    """Sends a Trainer's events to one callback."""

    def __init__(self, callback: Any, max_steps: int = 10, *, rank: int = 0, begin: int = 0) -> None:
        self.callback = callback
        self.state = transformers.TrainerState(
            max_steps=max_steps, is_world_process_zero=rank == 0, is_local_process_zero=rank == 0, global_step=begin
        )
        self.control = transformers.TrainerControl()
        self.send("train_begin")

    def send(self, event: str, step: int | None = None, **more: Any) -> None:
        if step is not None:
            self.state.global_step, self.state.epoch = step, step / 5
        # As transformers' own handler sends them: with the model and loaders as further keyword arguments.
        getattr(self.callback, f"on_{event}")(None, self.state, self.control, model=None, eval_dataloader=None, **more)


# metrics.jsonl


def test_training_and_evaluation_lines(tmp_path: Path) -> None:
    events = Events(MetricsLog(tmp_path, attempt=1))
    figures = {"loss": 0.7, "grad_norm": np.float32(1.5), "learning_rate": 5e-5, "real_tokens_per_s": 100.0}
    events.send("log", 5, logs={**figures, "rank_imbalance": 1.02, "memory_bytes": 12345, "epoch": 1.0})
    events.send("log", 5, logs={"eval_loss": 0.6, "eval_f1": float("nan"), "eval_runtime": 1.0, "epoch": 1.0})
    events.send(
        "log", 10, logs={"train_runtime": 3.0, "train_loss": 0.5, "train_samples_per_second": 1.0, "epoch": 2.0}
    )
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text
    first, second = (json.loads(line) for line in text.splitlines())
    assert first.pop("time") > 1e9
    assert first == {
        "step": 5,
        "epoch": 1.0,
        "attempt": 1,
        "resumed_at": 0,
        "rank_imbalance": 1.02,
        "memory_bytes": 12345,
        **figures,
    }
    assert second.pop("time") > 1e9
    assert second == {
        "step": 5,
        "epoch": 1.0,
        "attempt": 1,
        "split": "validation",
        "loss": 0.6,
        "f1": None,
        "runtime": 1.0,
    }


def test_only_rank_0_writes_and_nothing_before_the_first_line(tmp_path: Path) -> None:
    for rank in (0, 1):
        events = Events(MetricsLog(tmp_path, attempt=1), rank=rank)
        assert list(tmp_path.iterdir()) == []
    events.send("log", 5, logs={"loss": 0.7})
    assert list(tmp_path.iterdir()) == []


def test_an_evaluation_without_training(tmp_path: Path) -> None:
    log, state = MetricsLog(tmp_path, attempt=1), transformers.TrainerState(global_step=0)
    log.on_log(None, state, transformers.TrainerControl(), logs={"eval_accuracy": 0.9})
    assert [line["accuracy"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [0.9]


# Progress


@pytest.mark.parametrize("rank", [0, 1])
def test_the_trainers_history_does_not_grow_with_the_steps(tmp_path: Path, rank: int) -> None:
    """Each checkpoint writes all of it."""
    log, state = MetricsLog(tmp_path, attempt=1), transformers.TrainerState(is_world_process_zero=rank == 0)
    for step in range(1, 5 * LINES_KEPT + 1):
        line = {"loss": 0.5, "step": step} if step % 2 else {"eval_b_loss": 0.25, "step": step}
        state.global_step = step
        state.log_history.append(line)
        log.on_log(None, state, None, logs=line)
    steps = [line["step"] for line in state.log_history]
    assert steps == sorted(steps)
    for key, last in (("loss", 5 * LINES_KEPT - 1), ("eval_b_loss", 5 * LINES_KEPT)):
        kept = [line["step"] for line in state.log_history if key in line]
        assert LINES_KEPT <= len(kept) < 2 * LINES_KEPT
        assert kept == list(range(kept[0], last + 1, 2)), "the newest ones"


def test_training_in_plain_lines() -> None:
    stream, clock = io.StringIO(), Clock()
    callback = ProgressCallback(enabled=True, stream=stream, clock=clock)
    events = Events(callback, max_steps=20)
    for step in range(1, 21):
        events.send("step_begin")
        clock.now += 1
        events.control.should_evaluate = step == 10
        events.send("step_end", step)
        events.send("log", logs={"loss": 1 / step, "real_tokens_per_s": 12345.0, "grad_norm": 1.0})
        if step == 10:
            for done in (100, 200):
                clock.now += 30
                callback.evaluation("validation", done, 200)
            events.send("evaluate", metrics={"eval_loss": 0.5, "eval_f1": 0.875, "eval_runtime": 60.0, "epoch": 2.0})
            events.control.should_evaluate = False
    events.send("train_end")
    lines = stream.getvalue().splitlines()
    assert lines == [
        "train: 1/20 steps (5%), 1 steps/s, 0:19 left",
        "train: 6/20 steps (30%), 1 steps/s, 0:14 left, loss 0.2, tokens/s 12.3k",
        "evaluate validation: 100/200 rows (50%), 3.33 rows/s, 0:30 left",
        "evaluate validation: 200/200 rows (100%), 3.33 rows/s, in 1:00",
        "evaluated at step 10: loss 0.5000, f1 0.8750",
        "train: 11/20 steps (55%), 1 steps/s, 0:09 left, loss 0.1, tokens/s 12.3k",
        "train: 16/20 steps (80%), 1 steps/s, 0:04 left, loss 0.0667, tokens/s 12.3k",
        "train: 20/20 steps (100%), 1 steps/s, in 0:20, loss 0.0526, tokens/s 12.3k",
    ], "a minute of evaluation does not slow the training rate"


def test_resumed_training_shows_its_own_rate() -> None:
    stream, clock = io.StringIO(), Clock()
    events = Events(ProgressCallback(enabled=True, stream=stream, clock=clock), max_steps=100, begin=50)
    clock.now += 2
    events.send("step_end", 60)
    assert stream.getvalue() == "train: 60/100 steps (60%), 5 steps/s, 0:08 left\n"


def test_silent_elsewhere_and_closed_twice() -> None:
    stream = io.StringIO()
    callback = ProgressCallback(enabled=False, stream=stream)
    events = Events(callback)
    events.send("step_end", 1)
    callback.evaluation("validation", 1, 2)
    events.send("evaluate", metrics={"eval_loss": 0.5})
    events.send("predict", metrics={})
    callback.close()
    callback.close()
    assert stream.getvalue() == ""


# status.json


def _status(folder: Path) -> tuple[str, str, int]:
    status = read_status(folder)
    assert status is not None
    assert (status.exit, status.attempt) == (None, 1)
    return status.state, status.phase, status.step


def test_phase_and_step_are_kept_every_five_seconds(tmp_path: Path) -> None:
    clock, attempt = Clock(), claim_run_folder(tmp_path, IDENTITY, overwrite=False).attempt
    events = Events(StatusCallback(tmp_path, attempt, clock))
    assert _status(tmp_path) == ("running", "train", 0)
    clock.now += 4
    events.send("step_end", 1)
    assert _status(tmp_path) == ("running", "train", 0), "too early"
    clock.now += 1
    events.send("step_end", 2)
    assert _status(tmp_path) == ("running", "train", 2)
    clock.now += 5
    events.control.should_evaluate = events.control.should_save = True
    events.send("epoch_end", 3)
    assert _status(tmp_path) == ("running", "evaluate", 3)
    clock.now += 5
    events.send("evaluate")
    assert _status(tmp_path) == ("running", "save", 3)
    clock.now += 5
    events.send("save")
    assert _status(tmp_path) == ("running", "train", 3)
    clock.now += 5
    events.send("prediction_step")
    assert _status(tmp_path) == ("running", "evaluate", 3)


def test_other_ranks_leave_the_status_alone(tmp_path: Path) -> None:
    claim_run_folder(tmp_path, IDENTITY, overwrite=False)
    Events(StatusCallback(tmp_path, 1), rank=1).send("step_end", 1)
    assert read_status(tmp_path) is None


def test_a_newer_life_is_noticed_while_training(tmp_path: Path) -> None:
    clock, attempt = Clock(), claim_run_folder(tmp_path, IDENTITY, overwrite=False).attempt
    events = Events(StatusCallback(tmp_path, attempt, clock))
    claim_run_folder(tmp_path, IDENTITY, overwrite=False)
    events.send("step_end", 1)
    clock.now += 5
    with pytest.raises(RunFolderError, match="belongs to attempt 2"):
        events.send("step_end", 2)
    assert _status(tmp_path) == ("running", "train", 0)


# All of them in a real Trainer


def test_in_the_stock_trainer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Check the order of transformers' events and the names of its logs, on which the callbacks rely."""
    torch = pytest.importorskip("torch")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    model = transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=16, **sizes))
    rows = [
        {"input_ids": torch.tensor([1, 2, 3 + index % 9]), "labels": torch.tensor(index % 2)} for index in range(12)
    ]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "work"),
        num_train_epochs=2,
        per_device_train_batch_size=4,
        eval_strategy="epoch",
        save_strategy="no",
        logging_steps=2,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    attempt = claim_run_folder(tmp_path / "run", IDENTITY, overwrite=False).attempt
    stream = io.StringIO()
    status = StatusCallback(tmp_path / "run", attempt, clock=iter(range(0, 10_000, 10)).__next__)
    trainer = transformers.Trainer(
        model,
        arguments,
        train_dataset=rows,
        eval_dataset=rows[:8],
        callbacks=[MetricsLog(tmp_path / "run", attempt), ProgressCallback(enabled=True, stream=stream), status],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    kinds = [
        (line["step"], line["epoch"], line.get("split")) for line in read_metrics(tmp_path / "run" / "metrics.jsonl")
    ]
    evaluations = [(3, 1.0, "validation"), (6, 2.0, "validation")]
    assert [kind for kind in kinds if kind[2]] == evaluations
    assert [kind[0] for kind in kinds if not kind[2]] == [2, 4, 6]
    assert _status(tmp_path / "run")[2] == 6
    told = stream.getvalue()
    assert told.startswith("train: 1/6 steps (17%)")
    assert "evaluated at step 3: loss 0." in told
    assert "train: 6/6 steps (100%)" in told
    assert "'loss'" not in capsys.readouterr().out, "transformers' own printer is gone"
