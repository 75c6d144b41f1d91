"""Writes and reads a store's `index.json`, and finds any changed byte of it.

The file is the canonical JSON (sorted keys, no spaces, ASCII) of every field, and the sha256 of exactly those bytes as
the last field. A reader recomputes the checksum over the bytes that it read, so even a changed blank is found. Anybody
can compute such a checksum, so it also checks that the fields agree: no reader looks outside a file.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ftsys.errors import DataError
from ftsys.files.integrity import SealedJson
from ftsys.files.untrusted import FileName, file_bytes, typed

STORE_FORMAT = 1
"""Increase this number when the layout or the meaning of a column changes; it is part of the fingerprint."""

INDEX_NAME = "index.json"
_SEALED = SealedJson("sha256", order="sorted")

_TOKEN_TYPES = ("uint16", "uint32")
_LABEL_TYPES = re.compile(r"int64|float64|\([1-9]\d{0,5},\)int8")
_ALIGNMENT = 8
"""Arrow lays every buffer at a multiple of 8 bytes."""


@dataclass(frozen=True)
class TokenizerFacts:
    """The facts of a tokenizer that a run needs without loading it.

    `vocab_size` is the highest token id plus one, added tokens included. `max_length` is the truncation of this store
    in tokens, special tokens included; `model_max_length` is the limit in the tokenizer's own settings (0: no limit).
    """

    fingerprint: str
    pad_id: int
    vocab_size: int
    emits_token_types: bool
    max_length: int
    model_max_length: int = 0
    truncation: str = "longest_first"

    @property
    def token_type(self) -> np.dtype[Any]:
        """The type of stored token ids: uint16 if every one fits into it, otherwise uint32."""
        return np.dtype(np.uint16 if self.vocab_size <= 1 << 16 else np.uint32)


@dataclass(frozen=True)
class BatchTable:
    """One entry per record batch: its rows, and the offsets of its message and buffers in the file, in bytes."""

    offset: list[int] = dataclasses.field(default_factory=list)
    rows: list[int] = dataclasses.field(default_factory=list)
    list_offsets: list[int] = dataclasses.field(default_factory=list)
    values: list[int] = dataclasses.field(default_factory=list)
    first_length: list[int] = dataclasses.field(default_factory=list)
    label: list[int] = dataclasses.field(default_factory=list)


@dataclass(frozen=True)
class SplitIndex:
    """One Arrow file. `lengths[n]` is the number of examples of n tokens; `size` is in bytes."""

    file: FileName
    rows: int
    labelled: bool
    tokens: int
    lengths: list[int]
    size: int
    sha256: str
    batches: BatchTable

    @property
    def name(self) -> str:
        """The split's name."""
        return self.file.removesuffix(".arrow")


@dataclass(frozen=True)
class StoreIndex:
    """The contents of `index.json` without its checksum. Record batches have `rows_per_batch` rows, but a split's last.

    `splits` maps names to splits in the source's order; in the file it is a list.
    """

    fingerprint: str
    source: str
    tokenizer: TokenizerFacts
    token_type: str
    label_type: str
    rows_per_batch: int
    splits: Mapping[str, SplitIndex]
    format: int = STORE_FORMAT

    def to_bytes(self) -> bytes:
        """Return the bytes of the whole file; the checksum is the last field."""
        fields = {**dataclasses.asdict(self), "splits": [dataclasses.asdict(split) for split in self.splits.values()]}
        return _SEALED.seal(fields)

    @classmethod
    def read(cls, folder: Path) -> "StoreIndex":
        """Read and check the index of a store's folder. Raises DataError with the file and what is wrong with it."""
        path = folder / INDEX_NAME
        try:
            fields, intact = _SEALED.parse(file_bytes(path))
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}). Prepare the store again.") from error
        except ValueError:
            intact = False
        if not intact:
            raise damaged(path, "its bytes are not those that were written")
        if fields.get("format") != STORE_FORMAT:
            raise DataError(
                f"{path}: store format {fields.get('format')!r}, this version reads {STORE_FORMAT}. "
                "Delete the folder and prepare the store again."
            )
        try:
            return cls._from_fields(fields)
        except ValueError as error:
            raise damaged(path, f"it is no store's index ({error})") from error

    @classmethod
    def _from_fields(cls, fields: dict[str, Any]) -> "StoreIndex":
        """Check the types of all values, the names of the files, and the fields against each other. ValueError."""
        splits = typed(list[SplitIndex], fields.get("splits"))
        counts = Counter(split.file for split in splits)
        if not counts:
            raise ValueError("it has no split")
        for file in (file for file, count in counts.items() if count > 1):
            raise ValueError(f"two of its splits are in {file!r}")
        index = typed(StoreIndex, {**fields, "splits": {}})
        index = dataclasses.replace(index, splits={split.name: split for split in splits})
        _check(index)
        return index


def damaged(path: Path, what: str) -> DataError:
    """Make the error for a store whose bytes are not those that were written."""
    return DataError(f"{path}: damaged, {what}. Delete the folder {str(path.parent)!r} and prepare the store again.")


def _check(index: StoreIndex) -> None:
    """Raise ValueError with the first field that cannot be, or contradicts another one."""
    known_types = index.token_type in _TOKEN_TYPES and _LABEL_TYPES.fullmatch(index.label_type)
    if not known_types or index.rows_per_batch.bit_count() != 1 or index.rows_per_batch < 1:
        raise ValueError(
            f"token_type {index.token_type!r}, label_type {index.label_type!r}, rows_per_batch {index.rows_per_batch}"
        )
    for split in index.splits.values():
        for wrong in _contradictions(split, index):
            raise ValueError(f"{split.file}: {wrong}")


def _contradictions(split: SplitIndex, index: StoreIndex) -> Iterator[str]:
    lengths, rows = split.lengths, split.batches.rows
    if len(lengths) > index.tokenizer.max_length + 1 or min(lengths, default=-1) < 0:
        yield "`lengths` does not count examples by length"
    if sum(lengths) != split.rows or sum(length * count for length, count in enumerate(lengths)) != split.tokens:
        yield "`lengths` does not add up to its rows and tokens"
    full, last = rows[:-1], rows[-1:]
    if sum(rows) != split.rows or any(each != index.rows_per_batch for each in full):
        yield "its batches do not add up to its rows"
    if any(not 0 < each <= index.rows_per_batch for each in last):
        yield f"its last batch has {last[0]} rows"
    yield from _outside(split, np.dtype(index.label_type))


def _outside(split: SplitIndex, label_type: np.dtype[np.generic]) -> Iterator[str]:
    """Name the buffers that lie outside the file, all or in part. Where a row's tokens end, its reader checks."""
    table = split.batches
    label_bytes = label_type.base.itemsize * math.prod(label_type.shape)
    bytes_of_row = {"offset": 0, "values": 0, "list_offsets": 4, "first_length": 2, "label": label_bytes}
    for name, size in bytes_of_row.items():
        places = getattr(table, name)
        extra = size if name == "list_offsets" else 0  # one more than rows
        if len(places) != len(table.rows):
            yield f"batches.{name} has {len(places)} entries for {len(table.rows)} batches"
        elif any(
            not 0 <= place <= place + size * rows + extra <= split.size
            for place, rows in zip(places, table.rows, strict=True)
        ):
            yield f"batches.{name} leads out of the file"
        elif any(place % _ALIGNMENT for place in places):
            yield f"batches.{name} is not a multiple of {_ALIGNMENT}"
