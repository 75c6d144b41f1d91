"""Tokenizes all splits of a source into a store, and computes the fingerprint that names the store."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ftsys.data.store.index import STORE_FORMAT
from ftsys.data.store.writer import StoreWriter
from ftsys.data.tokenize.pipeline import ROWS_PER_CHUNK, encode_in_parallel, library_threads
from ftsys.data.tokenize.tokenizer import TextTokenizer, tokenizer_fingerprint
from ftsys.files.integrity import fingerprint_of
from ftsys.report.progress import SplitProgress
from ftsys.tasks import Task


class Progress(Protocol):
    """Called after each chunk; `total` is None if only reading the source tells the number of rows."""

    def __call__(self, done: int, total: int | None, split: str, /) -> None:
        """Report that `done` rows of `split` are written."""


class TextSource(Protocol):
    """Text and labels that can be tokenized into a store, such as `ftsys.data.sources.source.Source`."""

    @property
    def fingerprint(self) -> str:
        """The hex sha256 of everything that decides the rows."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""

    def rows(self, split: str) -> int | None:
        """Return the number of rows of a split; None if unknown."""

    def batches(self, split: str, rows_per_batch: int = ...) -> Iterator[Any]:
        """Yield `TextBatch`es in the order of the file."""


@dataclass(frozen=True)
class StoreRequest:
    """Everything that decides a store, and `root`, the folder in which stores are kept.

    `trust_remote_code` lets the tokenizer's own code in `model_folder` run.
    """

    source: TextSource
    task: Task
    model_folder: Path
    max_length: int
    root: Path
    trust_remote_code: bool = False

    @property
    def fingerprint(self) -> str:
        """The hex sha256 of what decides the store; its first 16 characters name the store's folder."""
        return fingerprint_of(
            {
                "format": STORE_FORMAT,
                "source": self.source.fingerprint,
                "splits": self.source.splits,
                "tokenizer": tokenizer_fingerprint(self.model_folder, self.trust_remote_code),
                "max_length": self.max_length,
                "columns": self.task.columns,
                "labels": self.task.labels,
                "regression": self.task.regression,
                **self.task.multi_label_facts(),
            }
        )

    @property
    def place(self) -> Path:
        """The store's folder. Reads the whole source to compute the fingerprint."""
        return self.root / self.fingerprint[:16]


def label_form(task: Task) -> str:
    """Return the NumPy type of a row's label in a store; that of a multi-label task is an array of int8."""
    if task.multi_label:
        return f"({len(task.labels)},)int8"
    return "float64" if task.regression else "int64"


def write_store(
    request: StoreRequest,
    fingerprint: str,
    tokenizer: TextTokenizer,
    token: str,
    progress: Progress | None = None,
    left: Path | None = None,
) -> Path:
    """Tokenize and write all splits, even if another process is doing so; returns the finished store's folder.

    `token` makes the name of the temporary folder unique. Rows that an interrupted process saved in the folder `left`
    are not tokenized again. Raises what the source raises, and StorageError; the temporary folder is then removed.
    """
    if progress is None:
        with SplitProgress("prepare") as progress:
            return write_store(request, fingerprint, tokenizer, token, progress, left)
    label_type = label_form(request.task)
    writing = StoreWriter(request.root, fingerprint, tokenizer.facts, label_type, token, left)
    with writing as writer, library_threads():
        for split in request.source.splits:
            _write_split(writer, request.source, split, tokenizer, progress)
        return writer.publish(request.source.fingerprint)


def _write_split(
    writer: StoreWriter, source: TextSource, split: str, tokenizer: TextTokenizer, progress: Progress
) -> None:
    out, total = writer.begin_split(split), source.rows(split)
    texts = _from_row(out.rows, source.batches(split, rows_per_batch=ROWS_PER_CHUNK))
    for encoded, labels in encode_in_parallel(tokenizer, texts):
        out.append(encoded.tokens, encoded.lengths, encoded.first_lengths, labels)
        progress(out.rows, total, split)
    writer.end_split(split)


def _from_row(row: int, batches: Iterator[Any]) -> Iterator[Any]:
    """Yield the rows of the batches from number `row` on."""
    for batch in batches:
        skipped = max(row - batch.first_row, 0)
        if skipped == 0:
            yield batch
        elif skipped < len(batch.first):
            second = batch.second and batch.second[skipped:]
            yield replace(
                batch, first_row=row, first=batch.first[skipped:], second=second, labels=batch.labels[skipped:]
            )
