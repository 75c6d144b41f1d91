"""Writes a store: Arrow files and index in a temporary folder, which one rename turns into the store."""

import errno
import os
import shutil
from pathlib import Path
from types import TracebackType

import numpy as np

from ftsys.data.store.index import INDEX_NAME, SplitIndex, StoreIndex, TokenizerFacts
from ftsys.data.store.partial import SUFFIX, read_saved, remove_notes
from ftsys.data.store.split_writer import ADVICE, SplitWriter, rows_per_batch
from ftsys.errors import DataError, StoppedEarly, StorageError
from ftsys.files.folders import sync_folder
from ftsys.files.storage_errors import storage_errors


class StoreWriter:
    """Writes a store. As a context manager it removes its temporary folder, unless `publish` has renamed it.

    The folder stays after an interruption if rows of it are saved. Another writer of the same store takes them over, if
    it gets the folder as `left`.
    """

    def __init__(
        self,
        root: Path,
        fingerprint: str,
        tokenizer: TokenizerFacts,
        label_type: str,
        token: str,
        left: Path | None = None,
    ) -> None:
        self.final = root / fingerprint[:16]
        self._temporary = root / f"{fingerprint[:16]}.tmp-{token}"
        self._fingerprint, self._tokenizer, self._label_type = fingerprint, tokenizer, label_type
        self._token_type = tokenizer.token_type
        self._left = left
        self._splits: dict[str, SplitIndex] = {}
        self._open: SplitWriter | None = None

    def __enter__(self) -> "StoreWriter":
        with storage_errors(self._temporary, ADVICE):
            self._check_final()
            self._temporary.mkdir(parents=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open is not None:
            self._open.abandon()
        interrupted = kind is not None and (issubclass(kind, StoppedEarly) or not issubclass(kind, Exception))
        if not (interrupted and any(self._temporary.glob(f"*{SUFFIX}"))):
            shutil.rmtree(self._temporary, ignore_errors=True)  # no effect after the rename

    def begin_split(self, name: str) -> SplitWriter:
        """Open the file of the next split. It begins with the rows that were saved in the folder left over."""
        path = self._temporary / f"{name}.arrow"
        self._open = SplitWriter(path, self._token_type, np.dtype(self._label_type), self._tokenizer.max_length)
        for rows in read_saved(self._left / path.name) if self._left is not None else ():
            self._open.append(*rows)
        return self._open

    def end_split(self, name: str) -> SplitIndex:
        """Finish the file of the open split and return its index entry."""
        if self._open is None:
            raise ValueError(f"split {name!r} was never begun")
        self._splits[name], self._open = self._open.close(), None
        return self._splits[name]

    def publish(self, source: str) -> Path:
        """Write the index, sync all files and rename the folder. An equal store that exists already stays in place.

        Raises StorageError if a split's file is no longer there, and DataError for another thing of the store's name.
        """
        self._check_files()
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
            remove_notes(self._temporary)
            sync_folder(self._temporary)
            try:
                self._temporary.rename(self.final)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
                self._check_final()
            sync_folder(self.final.parent)
        return self.final

    def _check_files(self) -> None:
        """Look for the splits' files: whoever took over the lease of a stalled process removed the folder.

        A note on saved rows makes the folder again.
        """
        for split in self._splits.values():
            path = self._temporary / split.file
            if not path.is_file() or path.stat().st_size != split.size:
                raise StorageError(f"{path}: was removed while the store was written. Start again.")

    def _check_final(self) -> None:
        """Raise DataError if what has the store's name is no store: whoever waits for one would wait for ever."""
        is_free = not os.path.lexists(self.final) or (self.final.is_dir() and not any(self.final.iterdir()))
        if not is_free and not (self.final / INDEX_NAME).exists():
            raise DataError(f"{self.final}: it is no complete store, {INDEX_NAME} is missing. Remove it.")
