"""Finds the store of a run, or makes it in one process while all others wait.

The way of a run's data: `sources` give texts and labels, `tokenize` makes tokens of them, `build_store` writes them to
disk, this module decides which process does that, `store` reads them back, and `batching` makes batches of them.
A lease decides which process makes the store. The others see a complete store or none.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftsys.cache import cache_folder
from ftsys.data.build_store import Progress, StoreRequest, write_store
from ftsys.data.bundle import store_of_bundle
from ftsys.data.store.index import INDEX_NAME
from ftsys.data.store.partial import fullest, saved_rows
from ftsys.data.store.reader import Store
from ftsys.data.store.split_writer import ADVICE
from ftsys.data.tokenize.tokenizer import check_fit, length_mistakes, load_tokenizer
from ftsys.errors import ConfigError, StorageError
from ftsys.files.lease import Lease, LeaseTimes, hold_or_wait
from ftsys.files.paths import expanded
from ftsys.files.storage_errors import is_full, storage_error, storage_errors
from ftsys.model_files.config import model_config
from ftsys.model_files.folder import check_model_folder, find_model_folder
from ftsys.report.notes import show_notes
from ftsys.tasks import Task

if TYPE_CHECKING:
    from ftsys.config import RunConfig

_log = logging.getLogger("ftsys")

STAGED_STORES = "FTSYS_STAGED_STORES"
"""Names a folder on this node's own disk with copies of stores, which are read in place of the shared ones."""


def store_root(setting: str = "auto") -> Path:
    """Return the folder of all stores: the setting, or for "auto" $FTSYS_CACHE/stores or the user's cache folder."""
    return cache_folder() / "stores" if setting == "auto" else expanded(setting)


def ensure_store(run: "RunConfig", task: Task, progress: Progress | None = None, source: Any = None) -> Store:
    """Find or make a run's store and open it. Any number of processes may call this at the same time.

    A run from a bundle gets the bundle's store. `source` replaces `data.source` by a `datasets.Dataset` or
    `DatasetDict`, which a run file cannot name. It cannot be combined with a bundle.

    Raises:
        ConfigError: for a model, tokenizer or folder that cannot be used.
        DataError: for a source that cannot be read, or a damaged store.
        StorageError: if the store cannot be written.
    """
    if run.bundle is not None:
        if source is not None:
            raise ConfigError(f"bundle={run.bundle!r} has its own store: leave out the data set or the bundle.")
        return store_of_bundle(run, task)
    return make_or_wait(_request(run, task, check_model_folder(run.model.name), source), progress)


def find_store(run: "RunConfig", task: Task) -> Path | None:
    """Return the folder of a run's store; None if it is not made, or its model is not on this machine.

    Makes and downloads nothing, but reads the whole source. Raises what `ensure_store` raises for a source or model
    that cannot be used.
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

    ConfigError.raise_if(length_mistakes(run.data.max_length, model_config(folder)))
    data = run.data if source is None else run.data.model_copy(update={"source": source})
    opened = open_source(data, task)
    show_notes(*opened.notes)
    root = store_root(run.data.store)
    return StoreRequest(opened, task, folder, run.data.max_length, root, run.model.trust_remote_code)


def make_or_wait(request: StoreRequest, progress: Progress | None = None, times: LeaseTimes | None = None) -> Store:
    """Find the requested store, or make it, or wait for the process that does; then open it and check that it fits."""
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
    store = _open(final)
    check_fit(store.tokenizer, request.model_folder)
    return store


def _open(final: Path) -> Store:
    """Open a store, or its copy on this node's disk, which has the store's own path: that outlives the job."""
    copy = Path(os.environ.get(STAGED_STORES) or final.parent) / final.name
    store = Store.open(copy if (copy / INDEX_NAME).exists() else final)
    store.path = final
    return store


def _make(request: StoreRequest, fingerprint: str, lease: Lease, progress: Progress | None) -> None:
    tokenizer = load_tokenizer(request.model_folder, request.max_length, request.trust_remote_code)
    check_fit(tokenizer.facts, request.model_folder)
    folders = list(request.root.glob(f"{fingerprint[:16]}.tmp-*"))  # left by processes that were killed
    left = fullest(folders)
    _remove(folder for folder in folders if folder != left)
    if left is not None:
        _log.info("an earlier process was stopped after %s rows: going on from there", f"{saved_rows(left):,}")
    try:
        write_store(request, fingerprint, tokenizer, lease.token, progress, left)
    except StorageError:
        _remove(folders)
        if not lease.lost:  # otherwise the new holder has removed the folder: wait for its store
            raise
    _remove(folders)


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _make_root(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        if is_full(error):
            raise storage_error(root, error, ADVICE) from error
        raise ConfigError(
            f"data.store={str(root)!r} cannot be written ({error.strerror}). "
            "Set data.store or the environment variable FTSYS_CACHE to a folder that can."
        ) from error
