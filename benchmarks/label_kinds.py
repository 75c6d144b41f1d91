"""Compares runs with several labels a row and with class weights with transformers' Trainer, on made-up CSV files.

    python -m benchmarks.label_kinds make FOLDER     writes the CSV files and the two run files
    ftsys train FOLDER/comments.toml                 ours: several labels
    ftsys train FOLDER/messages.toml                 ours: class weights
    python -m benchmarks.label_kinds stock FOLDER    the same two with transformers' Trainer; prints a line for each

The files have the columns of public releases: the comments those of the Kaggle "Toxic Comment Classification
Challenge", the messages those of the SMS Spam Collection. Their rows are drawn from lists of words, so that anybody can
make them again: no text of a release is in them, and scores on them say nothing about the scores on a release.
"""

import csv
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

from ftsys.config import RunConfig, load_run, resolve_task
from ftsys.data.class_weights import class_weights
from ftsys.data.prepare import ensure_store
from ftsys.metrics import compute, predictions_from_logits
from ftsys.model_files.folder import check_model_folder
from ftsys.train.setup import PROBLEM_TYPES

TRAIN_ROWS, VALIDATION_ROWS = 960, 400
LABELS = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
PLAIN = (
    "the this page article edit talk source please thanks version history list image title section name call".split()
)
TELLING = {
    "toxic": ("rubbish", "pathetic", "garbage"),
    "obscene": ("damn", "crap", "hell"),
    "threat": ("destroy", "hurt", "burn"),
    "insult": ("fool", "clown", "loser"),
    "identity_hate": ("heathens", "barbarians", "savages"),
}
SHARE = {"obscene": 0.45, "threat": 0.1, "insult": 0.5, "identity_hate": 0.15}
"""Share of the toxic comments that have a label; 35% of all comments are toxic."""
SPAM_WORDS = ("win", "free", "prize", "claim", "cash", "urgent", "offer", "txt")

COMMENTS = """output_dir = "{folder}/comments"

[task]
name = "comments"
columns = ["comment_text"]
multi_label = true
label_columns = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]
"""
MESSAGES = """output_dir = "{folder}/messages"

[task]
name = "messages"
columns = ["text"]
labels = ["ham", "spam"]
metrics = ["macro_f1", "precision", "recall", "accuracy"]
"""
COMMON = """
[data]
source = {{ train = "{folder}/{name}-train.csv", validation = "{folder}/{name}-validation.csv" }}
max_length = 64

[train]
epochs = 3
learning_rate = 2e-4
{weights}
[engine]
precision = "fp32"
"""


def comments(rows: int, draw: random.Random) -> Iterator[Sequence[object]]:
    """Yield the header, then comments with their labels as 0 and 1."""
    yield ("id", "comment_text", *LABELS)
    for row in range(rows):
        has = dict.fromkeys(LABELS, 0)
        if draw.random() < 0.35:
            has |= {"toxic": 1} | {label: int(draw.random() < share) for label, share in SHARE.items()}
            has["severe_toxic"] = has["obscene"] * has["threat"]
        words = draw.choices(PLAIN, k=draw.randint(6, 30))
        for label, telling in TELLING.items():
            if draw.random() < (0.95 if has[label] else 0.02):
                words.insert(draw.randrange(len(words)), draw.choice(telling))
        yield (f"{row:016x}", " ".join(words), *has.values())


def messages(rows: int, draw: random.Random) -> Iterator[Sequence[object]]:
    """Yield the header, then messages of which 6% are spam; words of spam are in others too, but fewer."""
    yield ("label", "text")
    for _ in range(rows):
        spam = draw.random() < 0.06
        words = draw.choices(PLAIN, k=draw.randint(8, 24))
        for _ in range(draw.choice((1, 2, 3)) if spam else draw.choice((0, 0, 0, 1, 1))):
            words.insert(draw.randrange(len(words)), draw.choice(SPAM_WORDS))
        yield ("spam" if spam else "ham", " ".join(words))


def make(folder: Path) -> None:
    """Write the CSV files and the run files."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(3)
    for name, rows_of, head, weights in (
        ("comments", comments, COMMENTS, ""),
        ("messages", messages, MESSAGES, 'class_weights = "balanced"\n'),
    ):
        for split, rows in (("train", TRAIN_ROWS), ("validation", VALIDATION_ROWS)):
            with (folder / f"{name}-{split}.csv").open("w", newline="", encoding="utf-8") as stream:
                csv.writer(stream).writerows(rows_of(rows, draw))
        text = (head + COMMON).format(folder=folder, name=name, weights=weights)
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")


def stock(run: RunConfig) -> dict[str, float]:
    """Train the run of a run file with transformers' Trainer, padded and in float32; return its metrics."""
    task, train = resolve_task(run), run.train
    store, folder = ensure_store(run, task), check_model_folder(run.model.name)
    weights = class_weights(train.class_weights, task, store.splits["train"])
    loss = None if weights is None or task.multi_label else torch.nn.CrossEntropyLoss(torch.tensor(weights))
    set_seed(train.seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        folder,
        num_labels=task.num_outputs,
        problem_type=PROBLEM_TYPES[task.kind],
        dtype=torch.float32,
        trust_remote_code=False,
    )
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            scratch,
            use_cpu=True,
            num_train_epochs=train.epochs or 3.0,
            learning_rate=train.learning_rate,
            per_device_train_batch_size=run.batch.global_size or 32,
            seed=train.seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Trainer(
            model,
            arguments,
            data_collator=DataCollatorWithPadding(AutoTokenizer.from_pretrained(folder, trust_remote_code=False)),
            train_dataset=store.splits["train"],  # its rows are what a stock collator takes
            compute_loss_func=None if loss is None else lambda outputs, labels, **_: loss(outputs.logits, labels),
        )
        trainer.train()
        found: Any = trainer.predict(store.splits["validation"])
    predictions = predictions_from_logits(np.asarray(found.predictions), task.regression, task.multi_label)
    return compute(task.metrics, predictions, store.splits["validation"].labels)


if __name__ == "__main__":
    command, place = sys.argv[1], Path(sys.argv[2]).absolute()
    if command == "make":
        make(place)
    else:
        for name in sys.argv[3:] or ("comments", "messages"):
            print(name, {key: round(value, 4) for key, value in stock(load_run(place / f"{name}.toml")).items()})
