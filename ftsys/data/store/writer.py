"""The store's writing side: a temporary folder beside the final one, Arrow stream files in it, one rename."""

import contextlib
import errno
import hashlib
import os
import shutil
import struct
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ftsys.data.store.index import INDEX_NAME, BatchTable, SplitIndex, StoreIndex, TokenizerFacts
from ftsys.errors import DataError, StorageError
from ftsys.files import storage_errors, sync_folder

MAX_ROWS_PER_BATCH = 1 << 16
MAX_TOKENS_PER_BATCH = 1 << 24
"""Bounds the writer's memory (32 MiB of uint16) and keeps Arrow's int32 list offsets far from their end."""

ADVICE = "Make room, or set data.store to a folder on another disk."
"""Advice in every message about a store that cannot be written."""

_END_OF_STREAM = struct.pack("<Ii", 0xFFFFFFFF, 0)


def rows_per_batch(max_length: int) -> int:
    """Rows of each record batch: the largest power of two within both bounds, so that a row's batch is one shift."""
    return 1 << (min(MAX_ROWS_PER_BATCH, max(1, MAX_TOKENS_PER_BATCH // max_length)).bit_length() - 1)


def narrowest_token_type(vocab_size: int) -> np.dtype[Any]:
    """uint16 where every id fits, otherwise uint32."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


class SplitWriter:
    """Writes one split's Arrow file, record batch by record batch, hashing as it goes."""

    def __init__(self, path: Path, token_type: np.dtype[Any], label_type: np.dtype[Any], max_length: int) -> None:
        self._path, self._token_type, self._label_type = path, token_type, label_type
        self._rows_per_batch = rows_per_batch(max_length)
        self._schema = pa.schema(
            [
                pa.field("example_id", pa.int64(), nullable=False),
                pa.field("input_ids", pa.list_(pa.field("item", pa.from_numpy_dtype(token_type), nullable=False))),
                pa.field("first_length", pa.uint16(), nullable=False),
                pa.field("label", pa.from_numpy_dtype(label_type), nullable=False),
            ]
        )
        self._pending: list[tuple[npt.NDArray[Any], ...]] = []
        self._pending_rows = self._rows = self._labelled = self._tokens = self._size = 0
        self._histogram = np.zeros(max_length + 1, np.int64)
        self._table, self._hash = BatchTable(), hashlib.sha256()
        with storage_errors(path, ADVICE):
            self._stream: BinaryIO = path.open("xb")
        self._write(self._schema.serialize())

    def append(
        self,
        tokens_T: npt.NDArray[Any],
        lengths_S: npt.NDArray[np.int32],
        first_lengths_S: npt.NDArray[Any],
        labels_S: npt.NDArray[Any],
    ) -> None:
        """Add S examples of T tokens in all; they get the next S example ids. DataError for one of no tokens."""
        if lengths_S.size and lengths_S.min() < 1:
            row = self._rows + self._pending_rows + int(lengths_S.argmin())
            raise DataError(
                f"split {self._path.stem!r}, row {row}: its text is empty and the tokenizer adds no token of its own, "
                "so there is nothing to classify. Leave such rows out, or write a word."
            )
        self._pending.append((tokens_T, lengths_S, first_lengths_S, labels_S))
        self._pending_rows += lengths_S.size
        if self._pending_rows >= self._rows_per_batch:
            self._flush(whole_batches_only=True)

    def close(self) -> SplitIndex:
        """Write what is pending, make it durable and describe the file. DataError if only some rows are labelled."""
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
        with contextlib.suppress(OSError):  # a full disk refuses the flush too; the file is about to be removed
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
        offsets = np.zeros(rows + 1, np.int32)
        np.cumsum(lengths_S, out=offsets[1:])
        batch = pa.record_batch(
            [
                pa.array(np.arange(self._rows, self._rows + rows)),
                pa.ListArray.from_arrays(
                    pa.array(offsets),
                    pa.array(tokens_T.astype(self._token_type, copy=False)),
                    self._schema.field("input_ids").type,
                ),
                pa.array(first_lengths_S.astype(np.uint16, copy=False)),
                pa.array(labels_S.astype(self._label_type, copy=False), from_pandas=False),  # NaN is a value, no null
            ],
            schema=self._schema,
        )
        message = batch.serialize()
        self._note_layout(message, rows)
        self._write(message)
        self._rows += rows
        self._tokens += tokens_T.size
        known = ~np.isnan(labels_S) if self._label_type.kind == "f" else labels_S >= 0
        self._labelled += int(np.count_nonzero(known))
        self._histogram += np.bincount(lengths_S, minlength=self._histogram.size)

    def _note_layout(self, message: pa.Buffer, rows: int) -> None:
        """Where the message's buffers lie in the file: read back zero-copy, so that Arrow itself tells the layout."""
        _, ids, first, label = pa.ipc.read_record_batch(message, self._schema).columns
        places = {
            "list_offsets": ids.buffers()[1],
            "values": ids.values.buffers()[1],
            "first_length": first.buffers()[1],
            "label": label.buffers()[1],
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


class StoreWriter:
    """A store in the making. As a context manager it removes its temporary folder unless `publish` was reached."""

    def __init__(self, root: Path, fingerprint: str, tokenizer: TokenizerFacts, label_type: str, token: str) -> None:
        self.final = root / fingerprint[:16]
        self._temporary = root / f"{fingerprint[:16]}.tmp-{token}"
        self._fingerprint, self._tokenizer, self._label_type = fingerprint, tokenizer, label_type
        self._token_type = narrowest_token_type(tokenizer.vocab_size)
        self._splits: dict[str, SplitIndex] = {}
        self._open: SplitWriter | None = None

    def __enter__(self) -> "StoreWriter":
        with storage_errors(self._temporary, ADVICE):
            self._temporary.mkdir(parents=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open is not None:
            self._open.abandon()
        shutil.rmtree(self._temporary, ignore_errors=True)  # gone already after a rename; else nobody reads it

    def begin_split(self, name: str) -> SplitWriter:
        """Open the next split's file."""
        self._open = SplitWriter(
            self._temporary / f"{name}.arrow", self._token_type, np.dtype(self._label_type), self._tokenizer.max_length
        )
        return self._open

    def end_split(self, name: str) -> SplitIndex:
        """Finish the split that is open."""
        if self._open is None:
            raise ValueError(f"split {name!r} was never begun")
        self._splits[name], self._open = self._open.close(), None
        return self._splits[name]

    def publish(self, source: str) -> Path:
        """Write the index, make all durable and rename; the store is there as a whole, or (another's) already was."""
        index = StoreIndex(
            fingerprint=self._fingerprint,
            source=source,
            tokenizer=self._tokenizer,
            token_type=self._token_type.name,
            label_type=self._label_type,
            rows_per_batch=rows_per_batch(self._tokenizer.max_length),
            splits=self._splits,
        )
        with storage_errors(self._temporary, ADVICE):
            with (self._temporary / INDEX_NAME).open("xb") as stream:
                stream.write(index.to_bytes())
                stream.flush()
                os.fsync(stream.fileno())
            sync_folder(self._temporary)
            try:
                self._temporary.rename(self.final)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            sync_folder(self.final.parent)
        return self.final
