"""Prepares the same tokens for all peers: a store for ours, a saved `datasets` folder for the others."""

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from ftsys.data.build_store import StoreRequest, write_store
from ftsys.data.sources.source import TextBatch, open_source
from ftsys.data.store.reader import Store
from ftsys.data.tokenize.tokenizer import load_tokenizer
from ftsys.tasks import GLUE, PARAPHRASE, Task

MAX_LENGTH = 128
SPLITS = ("train", "validation")
PAIR_TASKS = {"mrpc": "MRPC", "rte": "RTE"}
"""GLUE's tasks of labelled pairs that benchmarks train -> their folders."""


@dataclass(frozen=True)
class Split:
    """Labelled pairs in memory."""

    first: list[str]
    second: list[str]
    labels: np.ndarray

    def taken(self, rows: int) -> "Split":
        """Return the first `rows` pairs, repeated from the start where there are fewer."""
        places = np.arange(rows) % len(self.first)
        first, second = ([texts[place] for place in places] for texts in (self.first, self.second))
        return Split(first, second, self.labels[places])


@dataclass(frozen=True)
class Pairs:
    """Labelled pairs by split, in the form that a store is written from; `text` names their origin."""

    task: Task
    text: str
    of: dict[str, Split]
    fingerprint: str = "0" * 64

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits."""
        return tuple(self.of)

    def rows(self, split: str) -> int:
        """Count the pairs of a split."""
        return len(self.of[split].first)

    def batches(self, split: str, rows_per_batch: int = 1024) -> Iterator[TextBatch]:
        """Yield the pairs in order."""
        found = self.of[split]
        for start in range(0, len(found.first), rows_per_batch):
            part = slice(start, start + rows_per_batch)
            yield TextBatch(start, found.first[part], found.second[part], found.labels[part])


@dataclass(frozen=True)
class Inputs:
    """The data of one model's tokenizer: folder `store` for ours, folder `stock` for `datasets.load_from_disk`."""

    store: Path
    stock: Path
    text: str
    rows: dict[str, int]
    tokens: dict[str, int]


def read_pairs(rows: int | None = None, name: str = "mrpc") -> Pairs:
    """Read a task of PAIR_TASKS where FTSYS_GLUE_DIR names a folder of GLUE's files, else the synthetic sample.

    `rows` cuts or repeats the training split, and cuts the validation split. Raises DataError for damaged files.
    """
    glue = os.environ.get("FTSYS_GLUE_DIR")
    task = GLUE[name] if glue else PARAPHRASE
    source = open_source(SimpleNamespace(source=str(Path(glue) / PAIR_TASKS[name]) if glue else "synthetic"), task)
    of = {split: _read(source, split) for split in SPLITS}
    if rows is not None:
        sizes = {"train": rows, "validation": min(rows, len(of["validation"].first))}
        of = {part: split.taken(sizes[part]) for part, split in of.items()}
    return Pairs(task, "synthetic sample" if source.synthetic else PAIR_TASKS[name], of)


def _read(source: Any, name: str) -> Split:
    batches = list(source.batches(name))
    first = [text for batch in batches for text in batch.first]
    second = [text for batch in batches for text in batch.second or ()]
    return Split(first, second, np.concatenate([batch.labels for batch in batches]))


def make_inputs(pairs: Pairs, model_folder: Path, work: Path) -> Inputs:
    """Tokenize `pairs` with the model's tokenizer into new folders below `work`."""
    request = StoreRequest(pairs, pairs.task, model_folder, MAX_LENGTH, work)
    tokenizer = load_tokenizer(model_folder, MAX_LENGTH)
    store = write_store(request, f"{model_folder.name:_<16}", tokenizer, uuid.uuid4().hex, lambda *_: None)
    splits = Store.open(store).splits
    stock = work / f"{store.name}-stock"
    _save_for_stock(pairs, splits, stock)
    rows = {name: len(split) for name, split in splits.items()}
    return Inputs(store, stock, pairs.text, rows, {name: split.total_tokens for name, split in splits.items()})


def _save_for_stock(pairs: Pairs, splits: Any, folder: Path) -> None:
    """Save texts and tokens as the course's `map` does; its collator expects the column `label`."""
    from datasets import Dataset, DatasetDict, disable_progress_bars

    disable_progress_bars()
    made = {}
    for name, texts in pairs.of.items():
        examples = [splits[name][row] for row in range(len(texts.first))]
        tokens = {key: [example[key] for example in examples] for key in examples[0] if key != "labels"}
        columns = {"sentence1": texts.first, "sentence2": texts.second, "label": texts.labels.tolist()}
        made[name] = Dataset.from_dict(columns | tokens)
    DatasetDict(made).save_to_disk(folder)
