"""Writes one split of a store as an Arrow stream file, record batch by record batch."""

import contextlib
import hashlib
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ftsys.data.store.index import BatchTable, SplitIndex
from ftsys.data.store.partial import Prefix, save_prefix
from ftsys.errors import DataError, StorageError
from ftsys.files.storage_errors import storage_errors

MAX_ROWS_PER_BATCH = 1 << 16
MAX_TOKENS_PER_BATCH = 1 << 24
"""Bounds the writer's memory (32 MiB of uint16) and keeps Arrow's int32 list offsets far below their limit."""

SAVE_EVERY = 1 << 28
"""Bytes of a file after which they are synced and noted, so that the next process can go on from there."""

ADVICE = "Free disk space, or set data.store to a folder on another disk."
"""Advice in every message about a store that cannot be written."""

_END_OF_STREAM = struct.pack("<Ii", 0xFFFFFFFF, 0)


def rows_per_batch(max_length: int) -> int:
    """Return the rows of a record batch: the largest power of two within both limits.

    With a power of two, `row >> shift` is the record batch of a row.
    """
    return 1 << (min(MAX_ROWS_PER_BATCH, max(1, MAX_TOKENS_PER_BATCH // max_length)).bit_length() - 1)


def _arrow_type(label_type: np.dtype[Any]) -> pa.DataType:
    """Return the type of the label column: a list of a fixed number of labels for a NumPy type like "(3,)int8"."""
    item = pa.from_numpy_dtype(label_type.base)
    return pa.list_(pa.field("item", item, nullable=False), *label_type.shape) if label_type.shape else item


class SplitWriter:
    """Writes one split's Arrow file and computes its hash and index entry at the same time."""

    def __init__(self, path: Path, token_type: np.dtype[Any], label_type: np.dtype[Any], max_length: int) -> None:
        self._path, self._token_type, self._label_type = path, token_type, label_type
        self._rows_per_batch = rows_per_batch(max_length)
        self._schema = pa.schema(
            [
                pa.field("example_id", pa.int64(), nullable=False),
                pa.field("input_ids", pa.list_(pa.field("item", pa.from_numpy_dtype(token_type), nullable=False))),
                pa.field("first_length", pa.uint16(), nullable=False),
                pa.field("label", _arrow_type(label_type), nullable=False),
            ]
        )
        self._pending: list[tuple[npt.NDArray[Any], ...]] = []
        self._pending_rows = self._rows = self._labelled = self._tokens = self._size = self._saved = 0
        self._histogram = np.zeros(max_length + 1, np.int64)
        self._table, self._hash = BatchTable(), hashlib.sha256()
        with storage_errors(path, ADVICE):
            self._stream: BinaryIO = path.open("xb")
        self._write(self._schema.serialize())

    @property
    def rows(self) -> int:
        """The number of rows so far."""
        return self._rows + self._pending_rows

    def append(
        self,
        tokens_T: npt.NDArray[Any],
        lengths_S: npt.NDArray[np.int32],
        first_lengths_S: npt.NDArray[Any],
        labels_S: npt.NDArray[Any],
    ) -> None:
        """Add S examples with T tokens in all; they get the next S ids. Raises DataError for one without tokens."""
        if lengths_S.size and lengths_S.min() < 1:
            row = self.rows + int(lengths_S.argmin()) + 1
            raise DataError(
                f"split {self._path.stem!r}, row {row}: its text is empty and the tokenizer adds no token of its own, "
                "so there is nothing to classify. Leave such rows out, or write a word."
            )
        self._pending.append((tokens_T, lengths_S, first_lengths_S, labels_S))
        self._pending_rows += lengths_S.size
        if self._pending_rows >= self._rows_per_batch:
            self._flush(whole_batches_only=True)

    def close(self) -> SplitIndex:
        """Write pending rows, sync the file and return its index entry. DataError if only some rows are labelled."""
        self._flush(whole_batches_only=False)
        self._write(_END_OF_STREAM)
        with storage_errors(self._path, ADVICE):
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
        if 0 < self._labelled < self._rows:
            raise DataError(
                f"split {self._path.stem!r}: {self._rows - self._labelled} of {self._rows} rows have no label. "
                "Label all rows of a split or none."
            )
        return SplitIndex(
            file=self._path.name,
            rows=self._rows,
            labelled=self._labelled > 0,
            tokens=self._tokens,
            lengths=self._histogram.tolist(),
            size=self._size,
            sha256=self._hash.hexdigest(),
            batches=self._table,
        )

    def abandon(self) -> None:
        """Close the file without finishing it."""
        with contextlib.suppress(OSError):  # on a full disk the flush fails too; the file is removed next
            self._stream.close()

    def _flush(self, whole_batches_only: bool) -> None:
        columns = [np.concatenate(parts) for parts in zip(*self._pending, strict=True)] if self._pending else []
        self._pending, self._pending_rows = [], 0
        while columns and columns[1].size:
            rows = min(self._rows_per_batch, columns[1].size)
            tokens = int(columns[1][:rows].sum())
            head = [columns[0][:tokens], *(column[:rows] for column in columns[1:])]
            rest = [columns[0][tokens:], *(column[rows:] for column in columns[1:])]
            if whole_batches_only and rows < self._rows_per_batch:
                self._pending, self._pending_rows = [(*columns,)], rows
                return
            self._write_batch(*head)
            columns = rest

    def _write_batch(
        self,
        tokens_T: npt.NDArray[Any],
        lengths_S: npt.NDArray[Any],
        first_lengths_S: npt.NDArray[Any],
        labels_S: npt.NDArray[Any],
    ) -> None:
        rows = lengths_S.size
        columns = [
            pa.array(np.arange(self._rows, self._rows + rows)),
            self._token_lists(tokens_T, lengths_S),
            pa.array(first_lengths_S.astype(np.uint16, copy=False)),
            self._label_array(labels_S),
        ]
        message = pa.record_batch(columns, schema=self._schema).serialize()
        self._note_layout(message, rows)
        self._write(message)
        self._rows += rows
        self._tokens += tokens_T.size
        self._labelled += self._labelled_in(labels_S.reshape(rows, -1))
        self._histogram += np.bincount(lengths_S, minlength=self._histogram.size)
        if self._size - self._saved >= SAVE_EVERY:
            self._save()

    def _token_lists(self, tokens_T: npt.NDArray[Any], lengths_S: npt.NDArray[Any]) -> pa.Array:
        offsets = np.zeros(lengths_S.size + 1, np.int32)
        np.cumsum(lengths_S, out=offsets[1:])
        tokens = pa.array(tokens_T.astype(self._token_type, copy=False))
        return pa.ListArray.from_arrays(pa.array(offsets), tokens, self._schema.field("input_ids").type)

    def _labelled_in(self, labels_SL: npt.NDArray[Any]) -> int:
        first_S = labels_SL[:, 0]  # of a multi-label row, all values are -1 or none
        known = ~np.isnan(first_S) if self._label_type.kind == "f" else first_S >= 0
        return int(np.count_nonzero(known))

    def _save(self) -> None:
        with storage_errors(self._path, ADVICE):
            self._stream.flush()
            os.fsync(self._stream.fileno())
        save_prefix(self._path, Prefix(self._rows, self._size, self._hash.hexdigest()))
        self._saved = self._size

    def _label_array(self, labels_S: npt.NDArray[Any]) -> pa.Array:
        flat = labels_S.astype(self._label_type.base, copy=False).ravel()
        values = pa.array(flat, from_pandas=False)  # NaN is a value, not null
        return pa.FixedSizeListArray.from_arrays(values, *self._label_type.shape) if self._label_type.shape else values

    def _note_layout(self, message: pa.Buffer, rows: int) -> None:
        """Record the offsets of the message's buffers in the file, which Arrow tells: it reads the message back."""
        _, ids, first, label = pa.ipc.read_record_batch(message, self._schema).columns
        places = {
            "list_offsets": ids.buffers()[1],
            "values": ids.values.buffers()[1],
            "first_length": first.buffers()[1],
            "label": (label.values if self._label_type.shape else label).buffers()[1],
        }
        self._table.offset.append(self._size)
        self._table.rows.append(rows)
        for name, buffer in places.items():
            place = self._size + (buffer.address - message.address if buffer.size else 0)
            if place % 8:
                raise StorageError(
                    f"{self._path}: pyarrow {pa.__version__} lays {name} at {place}, not a multiple of 8"
                )
            getattr(self._table, name).append(place)

    def _write(self, data: "bytes | pa.Buffer") -> None:
        view = memoryview(data)
        self._hash.update(view)
        with storage_errors(self._path, ADVICE):
            self._stream.write(view)
        self._size += view.nbytes
