"""Tokenize once: find the store of a run, or make it while every other process waits.

The library's threads tokenize one chunk while this thread brings the one before into arrays and writes it, in bounded
memory. Which of many processes does so is settled by a lease; what the others see is a whole store or none.
"""

import dataclasses
import itertools
import logging
import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from ftsys.cache import cache_folder
from ftsys.data.bundle import store_of_bundle
from ftsys.data.store.index import INDEX_NAME, STORE_FORMAT
from ftsys.data.store.reader import Store
from ftsys.data.store.writer import ADVICE, StoreWriter
from ftsys.data.tokenize.tokenizer import TextTokenizer, check_fit, load_tokenizer, tokenizer_fingerprint
from ftsys.errors import ConfigError, StorageError
from ftsys.files import is_full, storage_error, storage_errors
from ftsys.integrity import fingerprint_of
from ftsys.lease import Lease, LeaseTimes, hold_or_wait
from ftsys.model_files.config import model_config
from ftsys.model_files.folder import check_model_folder, find_model_folder, longest_sequence
from ftsys.report.progress import SplitProgress
from ftsys.tasks import Task

if TYPE_CHECKING:
    from ftsys.config import RunConfig

ROWS_PER_CHUNK = 4096
CHARACTERS_PER_CHUNK = 8 * 2**20
"""Bounds what is in flight where texts are whole documents: the library tokenizes before it truncates."""

_log = logging.getLogger("ftsys")


class Progress(Protocol):
    """Told after each chunk; `total` is None where only reading the source tells."""

    def __call__(self, done: int, total: int | None, split: str, /) -> None:
        """`done` rows of `split` are written."""


class TextSource(Protocol):
    """What is prepared; `ftsys.data.sources.source.Source` is one."""

    @property
    def fingerprint(self) -> str:
        """Hex sha256 over everything that decides the rows."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that are there."""

    def rows(self, split: str) -> int | None:
        """Rows of a split, None if unknown."""

    def batches(self, split: str, rows_per_batch: int = ...) -> Iterator[Any]:
        """`TextBatch`es in the order of the file."""


@dataclasses.dataclass(frozen=True)
class StoreRequest:
    """Everything that decides a store, and where it is to lie."""

    source: TextSource
    task: Task
    model_folder: Path
    max_length: int
    root: Path

    @property
    def fingerprint(self) -> str:
        """Hex sha256; a store lies in the folder named by its first 16 characters."""
        return fingerprint_of(
            {
                "format": STORE_FORMAT,
                "source": self.source.fingerprint,
                "splits": self.source.splits,
                "tokenizer": tokenizer_fingerprint(self.model_folder),
                "max_length": self.max_length,
                "columns": self.task.columns,
                "labels": self.task.labels,
                "regression": self.task.regression,
            }
        )

    @property
    def place(self) -> Path:
        """The store's folder. Reads all of the source."""
        return self.root / self.fingerprint[:16]


def store_root(setting: str = "auto") -> Path:
    """Where stores live: the setting's folder, or for "auto" $FTSYS_CACHE/stores, else the user's cache folder."""
    return cache_folder() / "stores" if setting == "auto" else Path(setting).expanduser()


def ensure_store(run: "RunConfig", task: Task, progress: Progress | None = None, source: Any = None) -> Store:
    """Find or make a run's store and open it; safe to call in any number of processes at once.

    A run from a bundle gets the bundle's store. `source` stands in for `data.source`: a `datasets.Dataset` or
    `DatasetDict`, which a run file cannot name; a bundle holds no such rows, so it does not go with one.

    ConfigError: a model, tokenizer or folder that cannot be used. DataError: a source or store that is not what it
    claims to be. StorageError: the disk refuses.
    """
    if run.bundle is not None:
        if source is not None:
            raise ConfigError(f"bundle={run.bundle!r} has its own store: leave out the data set or the bundle.")
        return store_of_bundle(run, task)
    return make_or_wait(_request(run, task, check_model_folder(run.model.name), source), progress)


def find_store(run: "RunConfig", task: Task) -> Path | None:
    """Where a run's store lies, None if it is not made or its model is not here. Makes and downloads nothing.

    Raises what `ensure_store` raises for a source or model that cannot be used. Reads all of the source.
    """
    if run.bundle is not None:
        return store_of_bundle(run, task).path
    folder = find_model_folder(run.model.name)
    if folder is None:
        return None
    place = _request(run, task, folder).place
    return place if (place / INDEX_NAME).exists() else None


def _request(run: "RunConfig", task: Task, folder: Path, source: Any = None) -> StoreRequest:
    from ftsys.data.sources.source import open_source

    _check_length(run.data.max_length, folder)
    data = run.data if source is None else run.data.model_copy(update={"source": source})
    return StoreRequest(open_source(data, task), task, folder, run.data.max_length, store_root(run.data.store))


def make_or_wait(request: StoreRequest, progress: Progress | None = None, times: LeaseTimes | None = None) -> Store:
    """Find the requested store, wait for the process that makes it, or make it; then open it and check that it fits."""
    fingerprint, times = request.fingerprint, times or LeaseTimes()
    final = request.root / fingerprint[:16]

    def finished() -> Path | None:
        return final if (final / INDEX_NAME).exists() else None

    while finished() is None:
        _make_root(request.root)
        with storage_errors(request.root, ADVICE):
            held = hold_or_wait(
                final, finished, times, lambda who: _log.info("waiting for %s to prepare %s", who, final)
            )
        if isinstance(held, Lease):
            with held:
                _make(request, fingerprint, held, progress)
    store = Store.open(final)
    check_fit(store.tokenizer, request.model_folder)
    return store


def _make(request: StoreRequest, fingerprint: str, lease: Lease, progress: Progress | None) -> None:
    tokenizer = load_tokenizer(request.model_folder, request.max_length)
    check_fit(tokenizer.facts, request.model_folder)
    for left in request.root.glob(f"{fingerprint[:16]}.tmp-*"):  # of makers that were killed
        shutil.rmtree(left, ignore_errors=True)
    try:
        write_store(request, fingerprint, tokenizer, lease.token, progress)
    except StorageError:
        if not lease.lost:  # else the new holder has removed what was being written: wait for its store
            raise


def write_store(
    request: StoreRequest, fingerprint: str, tokenizer: TextTokenizer, token: str, progress: Progress | None = None
) -> Path:
    """Tokenize and write all splits, whoever else may be doing so; `token` makes the temporary folder's name unique.

    Returns the finished store's folder. Raises what the source raises, and StorageError; then nothing is left behind.
    """
    if progress is None:
        with SplitProgress("prepare") as progress:
            return write_store(request, fingerprint, tokenizer, token, progress)
    label_type = "float64" if request.task.regression else "int64"
    with StoreWriter(request.root, fingerprint, tokenizer.facts, label_type, token) as writer, _library_threads():
        for split in request.source.splits:
            _write_split(writer, request.source, split, tokenizer, progress)
        return writer.publish(request.source.fingerprint)


def _write_split(
    writer: StoreWriter, source: TextSource, split: str, tokenizer: TextTokenizer, progress: Progress
) -> None:
    out, done, total = writer.begin_split(split), 0, source.rows(split)
    for encoded, labels in encode_in_parallel(tokenizer, source.batches(split, rows_per_batch=ROWS_PER_CHUNK)):
        out.append(encoded.tokens, encoded.lengths, encoded.first_lengths, labels)
        done += labels.size
        progress(done, total, split)
    writer.end_split(split)


def encode_in_parallel(tokenizer: TextTokenizer, batches: Iterable[Any]) -> Iterator[tuple[Any, npt.NDArray[Any]]]:
    """(Encoded, labels) of each chunk in order; the next chunk is tokenized while one is used."""
    ahead: deque[tuple[Future[Any], npt.NDArray[Any]]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="tokenize") as pool:
        try:
            for first, second, labels in _chunks(batches):
                ahead.append((pool.submit(tokenizer.tokenize, first, second), labels))
                if len(ahead) > 2:
                    future, labels = ahead.popleft()
                    yield tokenizer.flatten(future.result()), labels
            while ahead:
                future, labels = ahead.popleft()
                yield tokenizer.flatten(future.result()), labels
        finally:
            for future, _ in ahead:
                future.cancel()


def _chunks(batches: Iterable[Any]) -> Iterator[tuple[list[str], list[str] | None, npt.NDArray[Any]]]:
    """A source's batches, cut where they hold too many characters."""
    for batch in batches:
        sizes = np.fromiter(map(len, batch.first), np.int64, len(batch.first))
        if batch.second is not None:
            sizes += np.fromiter(map(len, batch.second), np.int64, len(batch.second))
        cuts = np.flatnonzero(np.diff(np.cumsum(sizes) // CHARACTERS_PER_CHUNK)) + 1
        edges = [0, *cuts.tolist(), len(batch.first)]
        for start, end in itertools.pairwise(edges):
            yield batch.first[start:end], batch.second and batch.second[start:end], batch.labels[start:end]


def _make_root(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe = root / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        if is_full(error):
            raise storage_error(root, error, ADVICE) from error
        raise ConfigError(
            f"data.store={str(root)!r} cannot be written ({error.strerror}). "
            "Set data.store or the environment variable FTSYS_CACHE to a folder that can."
        ) from error


def _check_length(max_length: int, folder: Path) -> None:
    longest = longest_sequence(model_config(folder))
    if longest is not None and max_length > longest:
        raise ConfigError(
            f"data.max_length={max_length}: sequence longer than the model allows, {longest} tokens. "
            f"Set data.max_length to {longest} or less."
        )


@contextmanager
def _library_threads() -> Iterator[None]:
    """Let the library use the CPUs this process may run on, whatever launchers set for torch's own threads.

    It reads RAYON_NUM_THREADS once, at its first use, and TOKENIZERS_PARALLELISM at each: a user's setting stays.
    """
    os.environ.setdefault("RAYON_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
