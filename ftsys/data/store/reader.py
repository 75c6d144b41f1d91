"""Reads a store: memory-maps its Arrow stream files and views each of them as plain NumPy arrays.

Legend: S requested sequences, T their tokens, N rows of a split, B record batches.
An example is found by absolute file offsets (from index.json). So a gather over any number of record batches is the
same ten NumPy calls, and makes no Arrow object and runs no Python loop over examples or record batches.
"""

import math
import mmap
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from ftsys.data.store.index import INDEX_NAME, StoreIndex, TokenizerFacts, damaged
from ftsys.data.store.verify import check_size
from ftsys.errors import DataError
from ftsys.files.integrity import sha256_of
from ftsys.files.untrusted import open_regular

VERIFY_AT_OPEN = 256 * 2**20
"""Stores of up to this many bytes are hashed at every start (0.2 s at most), so that no changed byte is used."""


class Ragged(NamedTuple):
    """S examples, concatenated in the requested order."""

    tokens: npt.NDArray[np.integer]
    """(T,) token ids; uint16 or uint32 from a store."""
    lengths: npt.NDArray[np.int32]
    """(S,) tokens of each example."""
    first_lengths: npt.NDArray[np.int32]
    """(S,) tokens before the token type becomes 1; equal to `lengths` if it never does."""
    labels: npt.NDArray[Any]
    """(S,) int64 (-1: unlabelled) or float64 (NaN: unlabelled); multi-label (S, C) int8 of 1 and 0 (-1: unlabelled)."""
    example_ids: npt.NDArray[np.int64]
    """(S,) row of the split."""
    positions: npt.NDArray[np.int64]
    """(T,) position in the example, from 0."""
    cu_seqlens: npt.NDArray[np.int32]
    """(S+1,) index of each example's first token in `tokens`, and T."""


class StoreSplit:
    """One split: N examples, readable by row number, many at a time."""

    stock_semantics: ClassVar[bool] = False

    def __init__(self, folder: Path, name: str, index: StoreIndex) -> None:
        split = index.splits[name]
        self.name, self.rows, self.labelled = name, split.rows, split.labelled
        form = np.dtype(index.label_type)
        self.tokenizer, self.label_type, self._label_shape = index.tokenizer, form.base, form.shape
        self._folder, self._split = folder, split
        self._shift = index.rows_per_batch.bit_length() - 1  # a power of two: row >> shift is the record batch
        self._map_file(folder / split.file, np.dtype(index.token_type), self.label_type)
        self._iota = np.arange(4096)
        self._longest = len(split.lengths) - 1  # a store that was not hashed at its opening may be damaged

    def _map_file(self, path: Path, token_type: np.dtype[Any], label_type: np.dtype[Any]) -> None:
        try:
            with open_regular(path) as stream:
                self._memory = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise damaged(path, f"cannot be mapped ({error})") from error

        def view(dtype: "np.dtype[Any] | type") -> npt.NDArray[Any]:
            return np.frombuffer(self._memory, dtype, count=len(self._memory) // np.dtype(dtype).itemsize)

        self._offsets, self._tokens, self._labels = view(np.int32), view(token_type), view(label_type)
        self._first = view(np.uint16)
        table, first_row = self._split.batches, np.arange(len(self._split.batches.rows)) << self._shift

        def base(offsets: list[int], dtype: np.dtype[Any]) -> npt.NDArray[np.int64]:
            return np.array(offsets, np.int64) // dtype.itemsize

        # Each of these plus a row's number in the split is the index of the row's element in the view of the file.
        self._offsets_at = base(table.list_offsets, self._offsets.dtype) - first_row
        self._first_at = base(table.first_length, self._first.dtype) - first_row
        self._label_width = np.arange(math.prod(self._label_shape))
        self._labels_at = base(table.label, label_type) - first_row * len(self._label_width)
        self._tokens_at = base(table.values, token_type)  # index of a record batch's first token

    def __len__(self) -> int:
        return self.rows

    def __reduce__(self) -> "tuple[Any, ...]":
        """Pickle the path only: a worker process maps the file again. `Store.open` has checked its bytes."""
        return _open_split, (self._folder, self.name)

    def gather(self, rows: npt.ArrayLike) -> Ragged:
        """Read examples by row number, (S,) int64 in any order, repeats allowed; IndexError for a row out of range."""
        self._check_size()
        rows_S = np.asarray(rows, np.int64)
        if rows_S.size and rows_S.view(np.uint64).max() >= self.rows:  # unsigned: a negative row is huge
            raise IndexError(f"rows of split {self.name!r} are 0 to {self.rows - 1}, asked for {rows_S.tolist()!r}")
        batch_S = rows_S >> self._shift
        start_S, length_S = self._places_of(rows_S, batch_S)
        cu_seqlens = np.zeros(rows_S.size + 1, np.int32)
        np.add.accumulate(length_S, out=cu_seqlens[1:])
        position_T = self._up_to(int(cu_seqlens[-1])) - cu_seqlens[:-1].repeat(length_S)
        token_T = (start_S + self._tokens_at[batch_S]).repeat(length_S)
        token_T += position_T
        try:
            tokens_T = self._tokens[token_T]
        except IndexError as error:
            raise self._damaged(rows_S[start_S.view(np.uint32).argmax()]) from error
        if tokens_T.size and tokens_T.max() >= self.tokenizer.vocab_size:  # an embedding would end in an IndexError
            raise self.damage(f"it has the token id {tokens_T.max()}")
        first_S = self._first_lengths_of(rows_S, batch_S, length_S)
        labels = self._labels_of(rows_S, batch_S)
        return Ragged(tokens_T, length_S, first_S, labels, rows_S, position_T, cu_seqlens)

    def _places_of(
        self, rows_S: npt.NDArray[np.int64], batch_S: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Return the first token of each row within its record batch, and the row's length."""
        at_S = rows_S + self._offsets_at[batch_S]
        start_S = self._offsets[at_S]
        length_S = self._offsets[at_S + 1] - start_S
        if rows_S.size and length_S.view(np.uint32).max() > self._longest:  # unsigned: a negative length is huge
            raise self._damaged(rows_S[length_S.view(np.uint32).argmax()])
        return start_S, length_S

    def _first_lengths_of(
        self, rows_S: npt.NDArray[np.int64], batch_S: npt.NDArray[np.int64], length_S: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.int32]:
        first_S = self._first[rows_S + self._first_at[batch_S]].astype(np.int32)
        if (first_S > length_S).any():
            row = (first_S > length_S).argmax()
            raise self.damage(f"the first segment of row {rows_S[row]} is longer than the row, {first_S[row]} tokens")
        return first_S

    def _check_size(self) -> None:
        """Raise DataError if the file is shorter than when it was mapped: a read behind its end kills the process."""
        if self._memory.size() < len(self._memory):
            raise self.damage("it became shorter while it was in use")

    def damage(self, what: str) -> DataError:
        """Make the error for content of the split's file that cannot be right."""
        return damaged(self._folder / self._split.file, what)

    def _labels_of(self, rows_S: npt.NDArray[np.int64], batch_S: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        if not self._label_shape:
            return self._labels[rows_S + self._labels_at[batch_S]]
        at_S = rows_S * len(self._label_width) + self._labels_at[batch_S]
        return self._labels[at_S[:, None] + self._label_width]

    def _damaged(self, row: np.int64) -> DataError:
        return self.damage(f"the tokens of row {row} lie outside the file or are more than {self._longest}")

    def _up_to(self, count: int) -> npt.NDArray[np.int64]:
        if count > self._iota.size:
            self._iota = np.arange(2 * count)
        return self._iota[:count]

    def __getitem__(self, row: int) -> dict[str, Any]:
        """Return one example as Python lists, for a stock collator; it has `labels` only if the split has them."""
        row = row + self.rows if row < 0 else row
        one = self.gather([row])
        length = int(one.lengths[0])
        example: dict[str, Any] = {"input_ids": one.tokens.tolist(), "attention_mask": [1] * length}
        if self.tokenizer.emits_token_types:
            first = int(one.first_lengths[0])
            example["token_type_ids"] = [0] * first + [1] * (length - first)
        if self.labelled:
            example["labels"] = one.labels[0].astype(float).tolist() if self._label_shape else one.labels[0].item()
        return example

    @cached_property
    def lengths(self) -> npt.NDArray[np.int32]:
        """(N,) int32 tokens of each example; read at the first use and then kept.

        Raises DataError where they are not as many of each length as the index says.
        """
        self._check_size()
        out_N, counts = np.empty(self.rows, np.int32), np.zeros(self._longest + 1, np.int64)
        for batch, (first, rows) in enumerate(self._spans()):
            at, part = int(self._offsets_at[batch]) + first, out_N[first : first + rows]
            np.subtract(self._offsets[at + 1 : at + rows + 1], self._offsets[at : at + rows], out=part)
            if part.view(np.uint32).max() > self._longest:
                raise self._damaged(first + part.view(np.uint32).argmax())
            counts += np.bincount(part, minlength=len(counts))
        if not np.array_equal(counts, self.length_histogram):
            raise self.damage(f"its lengths are not those that {INDEX_NAME} counts")
        out_N.flags.writeable = False
        return out_N

    def label_parts(self) -> Iterator[npt.NDArray[Any]]:
        """Yield the labels of one record batch after the other, as `Ragged.labels` has them.

        Each is a copy: the file may become shorter once no check comes before a read.
        """
        width = len(self._label_width)
        for batch, (first, rows) in enumerate(self._spans()):
            self._check_size()
            start = int(self._labels_at[batch]) + first * width
            yield self._labels[start : start + rows * width].reshape(-1, *self._label_shape).copy()

    def labels_of(self, rows: npt.ArrayLike) -> npt.NDArray[Any]:
        """Read the labels of (S,) rows, each of which is one of the split's, as `Ragged.labels` has them."""
        self._check_size()
        rows_S = np.asarray(rows, np.int64)
        return self._labels_of(rows_S, rows_S >> self._shift)

    @cached_property
    def labels(self) -> npt.NDArray[Any]:
        """All labels, as `Ragged.labels` has them; copied from the file at the first use and then kept."""
        out_N, done = np.empty((self.rows, *self._label_shape), self._labels.dtype), 0
        for part in self.label_parts():
            out_N[done : done + len(part)] = part
            done += len(part)
        out_N.flags.writeable = False
        return out_N

    @property
    def length_histogram(self) -> npt.NDArray[np.int64]:
        """Number of examples with n tokens, int64 (max_length + 1,), from the index alone."""
        return np.array(self._split.lengths, np.int64)

    @property
    def total_tokens(self) -> int:
        """Real tokens (no padding) of the whole split."""
        return self._split.tokens

    def _spans(self) -> list[tuple[int, int]]:
        return [(batch << self._shift, rows) for batch, rows in enumerate(self._split.batches.rows)]


class Store:
    """An opened store: `splits` by name, and the index's facts of source and tokenizer."""

    def __init__(self, path: Path, index: StoreIndex) -> None:
        self.path, self.index = path, index
        self.splits = {name: StoreSplit(path, name, index) for name in index.splits}

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of source, tokenizer, length, task and format: equal fingerprints mean equal examples."""
        return self.index.fingerprint

    @property
    def source(self) -> str:
        """The source's own fingerprint."""
        return self.index.source

    @property
    def tokenizer(self) -> TokenizerFacts:
        """The tokenizer's facts."""
        return self.index.tokenizer

    @classmethod
    def open(cls, path: "str | os.PathLike[str]", verify: bool | None = None) -> "Store":
        """Open a store's folder; without `verify` this takes the same time for any number of rows.

        `verify` hashes every file; None does so for stores of at most VERIFY_AT_OPEN bytes. Raises DataError with the
        name of a file that is missing, truncated or changed.
        """
        folder = Path(path)
        index = StoreIndex.read(folder)
        for split in index.splits.values():
            check_size(folder / split.file, split)
        if verify is None:
            verify = sum(split.size for split in index.splits.values()) <= VERIFY_AT_OPEN
        if verify:
            for split in index.splits.values():
                if sha256_of(folder / split.file) != split.sha256:
                    raise damaged(folder / split.file, "its sha256 is not the one in index.json")
        return cls(folder, index)


def store_files(store: Store) -> list[str]:
    """Return the names of a store's files."""
    return [INDEX_NAME, *(split.file for split in store.index.splits.values())]


def _open_split(folder: Path, name: str) -> StoreSplit:
    return StoreSplit(folder, name, StoreIndex.read(folder))
