"""The synthetic sample: a synthetic paraphrase task in MRPC's shape, made at run time from a seeded grammar of our own.

A meaning fills the slots of a scene; a sentence is one rendering of it. Two renderings of one meaning are a paraphrase.
A hard negative renders two meanings that differ in a slot or a few, or in who did it to whom. The sample is called
synthetic wherever it is named.
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
"""Slots that the second sentence of a paraphrase spells anew, at most."""
CHANGES = (2, 3, 4, 5)
"""Slots whose meaning a hard negative changes, each number as likely as the others."""
SWAP_SHARE = 0.1
"""Of the negatives in scenes with two like roles: those that exchange the roles and change nothing else."""
REMARK_SHARE = 0.4
"""Pairs that both end in a remark, which gives the lengths MRPC's spread."""
_HOLE = re.compile(r"\{([^{}]*)\}")

_T = TypeVar("_T")
Pair = tuple[str, str, int]
Filling = dict[str, int]
"""Slot -> which meaning of its lexicon."""


@dataclass(frozen=True)
class SyntheticSplit:
    """One split of the sample."""

    name: str
    columns: Columns
    unit: str = "row"

    def read(self, rows_per_batch: int) -> Iterator[Rows]:
        """The split's pairs in order."""
        pairs = paraphrases()[self.name]
        for start in range(0, len(pairs), rows_per_batch):
            part = pairs[start : start + rows_per_batch]
            first, second, labels = (list(column) for column in zip(*part, strict=True))
            yield Rows(first, second, labels, range(start + 1, start + len(part) + 1))

    def rows(self) -> int:
        """Pairs in the split."""
        return SIZES[self.name]

    def sha256(self) -> str:
        """Hex digest of the pairs themselves."""
        return hashlib.sha256(json.dumps(paraphrases()[self.name]).encode()).hexdigest()


def synthetic_splits(task: Task) -> dict[str, SyntheticSplit]:
    """The splits of the synthetic sample. Raises DataError for any task but 'paraphrase'."""
    if (task.name, task.columns, task.labels) != (PARAPHRASE.name, PARAPHRASE.columns, PARAPHRASE.labels):
        raise DataError(
            f"data.source='synthetic' is the synthetic paraphrase sample, and the task is {task.name!r}. Set "
            f"task.name = {PARAPHRASE.name!r}, or give data.source the files of {task.name!r}."
        )
    return {split: SyntheticSplit(split, Columns.of(task, split)) for split in SIZES}


@cache
def paraphrases(seed: int = SEED) -> dict[str, tuple[Pair, ...]]:
    """Split -> (sentence, sentence, label) with label 1 for a paraphrase; no sentence occurs twice in the sample.

    The same on every machine and Python: it draws on `random.Random(seed).random()` alone, which Python keeps stable.
    """
    source = _Grammar(random.Random(seed))
    return {split: tuple(source.pair() for _ in range(size)) for split, size in SIZES.items()}


class _Grammar:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._seen: set[str] = set()

    def pair(self) -> Pair:
        """A pair whose sentences are new and differ."""
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
        """Fills the slots; slots that share a lexicon get different meanings."""
        filling: Filling = {}
        for slot, lexicon in scene.slots.items():
            taken = {filling[other] for other in filling if scene.slots[other] == lexicon}
            filling[slot] = self._pick([index for index in range(len(LEXICON[lexicon])) if index not in taken])
        return filling

    def _changed(self, scene: Scene, meaning: Filling, respelt: list[str]) -> tuple[Filling, list[str]]:
        """Another meaning, and the slots to spell anew. Exchanged roles show in no word: `respelt` stays as it is."""
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
        """A sentence that says `meaning`, spelt as in `spelt` but for the touched slots; adds to `spelt`."""
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
