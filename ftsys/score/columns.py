"""Chooses the columns of a scoring: those that are read, and those that are written."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ftsys.errors import ConfigError, DataError
from ftsys.score.outcomes import Head, Scores
from ftsys.tasks import GLUE

DIGITS = 6
"""Significant digits of a written score."""
LABEL, SCORE = "label", "score"
USUAL = (
    ("text", "text_pair"),
    ("query", "passage"),
    ("query", "document"),
    *dict.fromkeys(task.columns for task in GLUE.values() if len(task.columns) == 2),
    ("text",),
    ("sentence",),
)
"""Names that text columns usually have, pairs first."""


def text_columns(
    header: Sequence[str],
    place: str,
    asked: Sequence[str] | None,
    known: Sequence[str] | None,
    flag: str = "--text",
) -> tuple[tuple[str, ...], str]:
    """Return the text columns and a note on how they were found: as asked, as the model's run has them, or usual names.

    `flag` is what names them, for messages.

    Raises:
        DataError: nothing tells which columns hold the texts.
    """
    if asked:
        return tuple(asked), ""
    if known is not None and set(known) <= set(header):
        return tuple(known), f"texts are in {_listed(known)}, as in the model's training"
    found = [names for names in USUAL if set(names) <= set(header)]
    if known is None and found:
        return found[0], f"texts are in {_listed(found[0])}, by their usual names; {flag} names others"
    trained = f" The model was trained on {_listed(known)}." if known else ""
    raise DataError(
        f"{place}: it is not known which columns hold the texts; there are {_listed(header)}.{trained} Name one, or "
        f"two for pairs, with {flag}."
    )


@dataclass(frozen=True)
class Written:
    """The columns of the output: those carried over, then label and scores, whose names begin with `prefix`."""

    head: Head
    carried: tuple[str, ...] = ()
    top_k: int | None = None
    prefix: str = ""

    @property
    def names(self) -> list[str]:
        """The names of all columns, in order."""
        return [*self.carried, *(f"{self.prefix}{name}" for name in self._own())]

    def _own(self) -> Iterator[str]:
        if self.head.is_number:
            yield SCORE
            return
        yield LABEL
        if self.top_k is None:
            yield from (f"{SCORE}_{name}" for name in self.head.labels)
            return
        for place in range(1, self.top_k + 1):
            yield f"{LABEL}_{place}"
            yield f"{SCORE}_{place}"

    def check(self) -> None:
        """Raise ConfigError for a top-k that the head does not have, and for a name that would be written twice."""
        if self.top_k is not None and self.head.is_number:
            raise ConfigError("--top-k needs classes, and this model gives one number for a row. Leave it out.")
        if self.top_k is not None and not 1 <= self.top_k <= len(self.head.labels):
            raise ConfigError(f"--top-k {self.top_k} is not between 1 and the model's {len(self.head.labels)} classes.")
        twice = [name for name in self.names if self.names.count(name) > 1]
        if twice:
            raise ConfigError(
                f"the output would have two columns {twice[0]!r}. Give the new ones other names, for example with "
                "--prefix model_, or leave the column out of --columns."
            )

    def columns(self, carried: Sequence[tuple[Any, ...]], scores_NC: Scores) -> dict[str, Sequence[Any]]:
        """Return the values of N rows by column."""
        values = [[row[at] for row in carried] for at in range(len(self.carried))]
        return dict(zip(self.names, [*values, *self._own_values(scores_NC)], strict=True))

    def _own_values(self, scores_NC: Scores) -> Iterator[Sequence[Any]]:
        if self.head.is_number:
            yield rounded(scores_NC[:, 0])
            return
        yield self.head.decide(scores_NC)
        if self.top_k is None:
            yield from (rounded(scores_N) for scores_N in scores_NC.T)
            return
        best_NK = np.argsort(-scores_NC, axis=1, kind="stable")[:, : self.top_k]
        for best_N in best_NK.T:
            yield [self.head.labels[at] for at in best_N]
            yield rounded(np.take_along_axis(scores_NC, best_N[:, None], axis=1)[:, 0])

    def types(self, inputs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return Arrow's types of all columns but the scores, which are float64.

        A column that is carried over keeps its type where all `inputs` (types by column) agree, else it becomes text.
        """
        import pyarrow as pa

        own: dict[str, Any] = {}
        for name in self._own():
            if name.startswith(LABEL):
                own[self.prefix + name] = pa.list_(pa.string()) if name == LABEL and self.head.several else pa.string()
        for name in self.carried:
            kinds = [types.get(name) for types in inputs]
            own[name] = kinds[0] if kinds[0] is not None and len(set(kinds)) == 1 else pa.string()
        return own


def rounded(scores_N: Any) -> list[float]:
    """Return scores with DIGITS significant digits."""
    return [float(f"{score:.{DIGITS}g}") for score in scores_N.tolist()]


def _listed(names: Sequence[str] | Mapping[str, Any] | None) -> str:
    return ", ".join(map(repr, names or ()))
