"""Makes the synthetic sample at run time: a paraphrase task with MRPC's columns, from a grammar and a fixed seed.

A meaning fills the slots of a scene, and a sentence is one rendering of a meaning. Two renderings of one meaning are a
paraphrase. A hard negative renders two meanings that differ in a few slots, or that exchange two roles.
"""

import hashlib
import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from ftsys.data.sources.rows import Columns, Rows
from ftsys.data.sources.synthetic.grammar import SCENES, Scene
from ftsys.data.sources.synthetic.lexicon import LEXICON
from ftsys.errors import DataError
from ftsys.tasks import PARAPHRASE, Task

SIZES = {"train": 2000, "validation": 400}
SEED = 20240229
POSITIVE_SHARE = 0.67
RESPELT = 3
"""The largest number of slots that the second sentence of a paraphrase spells in another way."""
CHANGES = (2, 3, 4, 5)
"""Numbers of slots whose meaning a hard negative changes; all numbers are equally likely."""
SWAP_SHARE = 0.1
"""Fraction of the negatives in scenes with two similar roles that exchange the roles and change nothing else."""
REMARK_SHARE = 0.4
"""Fraction of the pairs in which both sentences end in a remark: it gives the lengths the spread of MRPC's."""
_HOLE = re.compile(r"\{([^{}]*)\}")

_T = TypeVar("_T")
Pair = tuple[str, str, int]
Filling = dict[str, int]
"""Slot -> index of a meaning in its lexicon."""


@dataclass(frozen=True)
class SyntheticSplit:
    """One split of the sample."""

    name: str
    columns: Columns
    unit: str = "row"

    def read(self, rows_per_batch: int) -> Iterator[Rows]:
        """Yield the split's pairs in order."""
        pairs = paraphrases()[self.name]
        for start in range(0, len(pairs), rows_per_batch):
            part = pairs[start : start + rows_per_batch]
            first, second, labels = (list(column) for column in zip(*part, strict=True))
            yield Rows(first, second, labels, range(start + 1, start + len(part) + 1))

    def rows(self) -> int:
        """Return the number of pairs."""
        return SIZES[self.name]

    def sha256(self) -> str:
        """Return a hex digest of the pairs."""
        return hashlib.sha256(json.dumps(paraphrases()[self.name]).encode()).hexdigest()


def synthetic_splits(task: Task) -> dict[str, SyntheticSplit]:
    """Return the splits of the synthetic sample. Raises DataError for any task but 'paraphrase'."""
    if (task.name, task.columns, task.labels) != (PARAPHRASE.name, PARAPHRASE.columns, PARAPHRASE.labels):
        raise DataError(
            f"data.source='synthetic' is the synthetic paraphrase sample, and the task is {task.name!r}. Set "
            f"task.name = {PARAPHRASE.name!r}, or give data.source the files of {task.name!r}."
        )
    return {split: SyntheticSplit(split, Columns.of(task, split)) for split in SIZES}


@cache
def paraphrases(seed: int = SEED) -> dict[str, tuple[Pair, ...]]:
    """Return split -> (sentence, sentence, label), with label 1 for a paraphrase. No sentence occurs twice.

    The result is the same on every machine and Python: the only random source is `random.Random(seed).random()`, which
    Python keeps stable.
    """
    source = _Grammar(random.Random(seed))
    return {split: tuple(source.pair() for _ in range(size)) for split, size in SIZES.items()}


class _Grammar:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._seen: set[str] = set()

    def pair(self) -> Pair:
        """Make a pair of different sentences that no earlier pair contains."""
        while True:
            first, second, label = self._pair()
            if first != second and not {first, second} & self._seen:
                self._seen |= {first, second}
                return first, second, label

    def _pair(self) -> Pair:
        scene = self._pick(SCENES)
        meaning = self._meaning(scene)
        label = int(self._rng.random() < POSITIVE_SHARE)
        remark = self._remark()
        respelt = self._some(scene.changes, RESPELT)
        other, touched = (meaning, respelt) if label else self._changed(scene, meaning, respelt)
        spelt: dict[str, str] = {}
        first = self._render(scene, meaning, spelt, (), remark)
        return first, self._render(scene, other, spelt, touched, remark), label

    def _remark(self) -> str:
        spellings = self._pick(LEXICON["remark"])[""].split("|")
        return f", {self._pick(spellings)}." if self._rng.random() < REMARK_SHARE else "."

    def _pick(self, options: Sequence[_T]) -> _T:
        return options[int(self._rng.random() * len(options))]

    def _meaning(self, scene: Scene) -> Filling:
        """Fill the slots; slots with the same lexicon get different meanings."""
        filling: Filling = {}
        for slot, lexicon in scene.slots.items():
            taken = {filling[other] for other in filling if scene.slots[other] == lexicon}
            filling[slot] = self._pick([index for index in range(len(LEXICON[lexicon])) if index not in taken])
        return filling

    def _changed(self, scene: Scene, meaning: Filling, respelt: list[str]) -> tuple[Filling, list[str]]:
        """Return another meaning and the slots to spell in another way; exchanged roles leave `respelt` unchanged."""
        if scene.swaps and self._rng.random() < SWAP_SHARE:
            one, two = self._pick(scene.swaps)
            return meaning | {one: meaning[two], two: meaning[one]}, respelt
        count = self._pick(CHANGES)
        touched = self._some(scene.changes, min(count, 3))
        touched += self._some([slot for slot in scene.slots if slot not in touched], count - len(touched))
        changed = dict(meaning)
        for slot in touched:
            alike = [other for other, lexicon in scene.slots.items() if lexicon == scene.slots[slot]]
            taken = {filling[other] for filling in (meaning, changed) for other in alike}
            changed[slot] = self._pick([each for each in range(len(LEXICON[scene.slots[slot]])) if each not in taken])
        return changed, touched

    def _some(self, options: Sequence[str], most: int) -> list[str]:
        left = list(options)
        return [left.pop(int(self._rng.random() * len(left))) for _ in range(min(most, len(left)))]

    def _render(
        self, scene: Scene, meaning: Filling, spelt: dict[str, str], touched: Sequence[str], remark: str
    ) -> str:
        """Render `meaning` as a sentence, spelt as in `spelt` but for the touched slots; adds to `spelt`."""
        before = dict(spelt)
        text = self._pick(scene.frames)
        while hole := _HOLE.search(text):
            slot, _, facet = hole[1].partition(".")
            spellings = LEXICON[scene.slots[slot]][meaning[slot]][facet] if slot in scene.slots else hole[1]
            spelt[hole[1]] = self._spelling(spellings.split("|"), before.get(hole[1], ""), anew=slot in touched)
            text = text[: hole.start()] + spelt[hole[1]] + text[hole.end() :]
        return text[0].upper() + text[1:-1] + remark

    def _spelling(self, spellings: list[str], earlier: str, anew: bool) -> str:
        if anew:
            return self._pick([each for each in spellings if each != earlier] or spellings)
        return earlier if earlier in spellings else self._pick(spellings)
