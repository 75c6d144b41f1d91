"""Scores rows from Python: `Classifier("model").predict(texts)`, packed, for any sequence classifier.

Shape suffixes: N rows, C outputs of the head.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ftsys.errors import ConfigError, DataError
from ftsys.score.engine import NO_TOKENS, Engine
from ftsys.score.in_memory import entries_of
from ftsys.score.model import find_model
from ftsys.score.outcomes import SIGMOID, head_of_model, sigmoid
from ftsys.score.reranker import check_no_prompt, cross_encoder_activation
from ftsys.score.windows import ROWS, Entry, Window, prepared_ahead, windows

Tokens = int | Literal["auto"]


class Scored(NamedTuple):
    """The labels and scores of N rows, in their order."""

    labels: list[Any] | None
    """The label of each row, for a multi-label model the list of its labels; None for a model that gives a number."""
    scores: npt.NDArray[np.float64]
    """(N, C) scores of the classes; (N,) for a model that gives a number."""


class Classifier:
    """A trained sequence classifier that scores rows from Python.

    `model` is a run folder, a folder that `save_pretrained` wrote, or a name on the Hub. `precision` is "fp32", "bf16"
    or "auto" (bf16 where the device computes it fast). `max_length` in tokens cuts longer rows; by default it is that
    of the model's training, else the model's own. `trust_remote_code` lets Python code of the model's folder run.
    Raises ConfigError for a model that cannot be used.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        device: str = "auto",
        precision: str = "fp32",
        max_length: int | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self._found = find_model(str(model), max_length, trust_remote_code)
        self._head = head_of_model(self._found.name, self._found.folder, self._found.config)
        self._engine = Engine(self._found, device, precision)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes; none for a model that gives a number."""
        return self._head.labels

    @property
    def layout(self) -> str:
        """The layout of the batches, such as "packed", and the reason why it is another one."""
        layout = self._engine.layout
        return f"{layout.name}: {layout.reason}" if layout.reason else layout.name

    def predict(
        self,
        rows: Any,
        *,
        columns: Sequence[str] | None = None,
        threshold: float | None = None,
        batch_tokens: Tokens = "auto",
    ) -> Scored:
        """Return labels and scores of rows: texts, pairs or dictionaries in any iterable, or a table.

        Tables are those of pandas, polars and `datasets`; `columns` names their one or two text columns. `threshold`
        is that of `ftsys predict`. `batch_tokens` are computed at once. Raises DataError for a row that has no text.
        """
        head = self._head if threshold is None else self._head.with_threshold(threshold)
        entries = entries_of(rows, columns, self._found.columns)
        scores_NC = head.scores(self._logits(entries, batch_tokens))
        return Scored(None, scores_NC[:, 0]) if head.is_number else Scored(head.decide(scores_NC), scores_NC)

    def score_pairs(
        self, pairs: Any, *, columns: Sequence[str] | None = None, batch_tokens: Tokens = "auto"
    ) -> npt.NDArray[np.float32]:
        """Return what `CrossEncoder.predict` of sentence-transformers returns for the same model.

        That is (N,) for a model with one output, after the activation that its configuration names, by default a
        sigmoid; else (N, C) without an activation, unless one is named. Raises DataError for a row that is no pair,
        and ConfigError for a model that has a prompt of its own.
        """
        check_no_prompt(self._found.folder)
        outputs = len(self._head.labels) or 1
        activation = cross_encoder_activation(self._found.folder, self._found.config, outputs)
        entries = _only_pairs(entries_of(pairs, columns, self._found.columns))
        logits_NC = self._logits(entries, batch_tokens).astype(np.float64)
        scores_NC = (sigmoid(logits_NC) if activation == SIGMOID else logits_NC).astype(np.float32)
        return scores_NC[:, 0] if outputs == 1 else scores_NC

    def _logits(self, entries: Iterator[Entry], batch_tokens: Tokens) -> npt.NDArray[np.float32]:
        """Return the logits (N, C) of all rows; the next rows are tokenized while some are computed."""
        tokens = self._engine.batch_tokens if batch_tokens == "auto" else batch_tokens
        if tokens < 1:
            raise ConfigError(f"batch_tokens={tokens} is not a number of tokens: write 1 or more, or 'auto'.")

        def prepare(window: Window) -> None:
            window.prepared = self._engine.encode(*window.columns)
            if not window.prepared.lengths.all():
                raise DataError(f"{window.rows[window.prepared.lengths.argmin()].place}: {NO_TOKENS}. Leave it out.")

        ahead = prepared_ahead(windows(entries, ROWS[self._engine.device.type]), prepare)
        found = [self._engine.logits(window.prepared, tokens) for window in ahead]
        return np.concatenate(found) if found else np.empty((0, len(self._head.labels) or 1), np.float32)


def _only_pairs(entries: Iterator[Entry]) -> Iterator[Entry]:
    """Yield entries of pairs. A CrossEncoder takes a list of two texts for one pair, which must not go unnoticed."""
    for entry in entries:
        if len(entry.texts) != 2:
            raise DataError(f"{entry.place}: one text where a pair is needed. Give a list of pairs, even of one pair.")
        yield entry
