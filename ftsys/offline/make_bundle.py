"""Makes a bundle: copies everything that a run needs into one folder, in one atomic step."""

import hashlib
import io
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ftsys import __version__
from ftsys.config import RunConfig, build_run, dump_toml, plain_tree, read_run_file
from ftsys.data.build_store import Progress
from ftsys.data.bundle import (
    BUNDLE_NAME,
    DEEPSPEED_NAME,
    HF_FOLDER,
    MODEL_FOLDER,
    RUN_NAME,
    STORES_FOLDER,
    Bundle,
    asked_of,
)
from ftsys.data.prepare import ensure_store
from ftsys.data.store.reader import Store, store_files
from ftsys.errors import ConfigError, DataError
from ftsys.files.folders import remove_tree, sync_folder
from ftsys.files.integrity import hashed_file, sha256_of
from ftsys.files.lease import LeaseTimes, hold_or_wait
from ftsys.files.storage_errors import storage_errors
from ftsys.files.untrusted import FileEntry, open_regular
from ftsys.model_files.config import BUNDLED
from ftsys.model_files.folder import model_files, resolve_model_folder
from ftsys.model_files.links import refuse_links
from ftsys.offline.hf_caches import for_bundle
from ftsys.tasks import Task

_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class _Contents:
    """The contents of a bundle that is to be made: files to copy and texts to write, by their paths in the bundle."""

    asked: Mapping[str, Any]
    store: str
    files: Mapping[str, Path | bytes]
    known: Mapping[str, str]
    """The sha256 of those files for which the store's index records one."""
    links: Mapping[str, str]
    """Relative links within the bundle, by their paths. They are not hashed: their targets are."""


def make_bundle(run: RunConfig, task: Task, target: Path, progress: Progress | None = None) -> tuple[Bundle, bool]:
    """Prepare the store if needed and copy a run's model, tokenizer and store to `target`, which may be moved later.

    Returns the bundle, and True if it was made now. An existing bundle of the same run is verified byte by byte
    instead. Raises ConfigError for a run from a bundle, or a `target` with other contents; DataError for a damaged
    bundle; StorageError if the disk cannot be written; and what `ensure_store` raises.
    """
    if run.bundle is not None:
        raise ConfigError(f"the run is from the bundle {run.bundle!r}: copy that folder instead.")
    _refuse_another(target)
    store = ensure_store(run, task, progress)
    with storage_errors(target), tempfile.TemporaryDirectory() as scratch:
        contents = _contents(run, task, store, Path(scratch))
        target.parent.mkdir(parents=True, exist_ok=True)
        held = hold_or_wait(target, lambda: _there(target), LeaseTimes())
        if isinstance(held, Bundle):
            return _same(held, contents), False
        with held:
            for left in target.parent.glob(f"{target.name}.tmp-*"):  # left by processes that were killed
                remove_tree(left)
            return _write(target, contents), True


def _refuse_another(target: Path) -> None:
    """Raise ConfigError if `target` exists and is neither a bundle nor an empty folder, which "." cannot be."""
    free = target.is_dir() and target.name and not any(target.iterdir())
    if target.exists() and not free and not (target / BUNDLE_NAME).exists():
        raise ConfigError(f"{str(target)!r} is there and is not a bundle: name a folder that does not exist yet.")


def _there(target: Path) -> Bundle | None:
    return Bundle.read(target) if (target / BUNDLE_NAME).exists() else None


def _contents(run: RunConfig, task: Task, store: Store, scratch: Path) -> _Contents:
    model, place = resolve_model_folder(run.model.name), f"{STORES_FOLDER}/{store.path.name}"
    names = model_files(model, run.model.trust_remote_code)
    if run.model.name != BUNDLED:
        refuse_links(model, names)
    files: dict[str, Path | bytes] = {f"{MODEL_FOLDER}/{name}": model / name for name in names}
    files |= {f"{place}/{name}": store.path / name for name in store_files(store)}
    known = {f"{place}/{split.file}": split.sha256 for split in store.index.splits.values()}
    if run.engine.deepspeed:
        files[DEEPSPEED_NAME] = Path(run.engine.deepspeed)
    files[RUN_NAME] = _run_text(run).encode()
    cached, links = for_bundle(run, task, model, scratch)
    files |= {f"{HF_FOLDER}/{name}": source for name, source in cached.items()}
    links = {f"{HF_FOLDER}/{name}": target for name, target in links.items()}
    return _Contents(asked_of(run, task), store.fingerprint, files, known, links)


def _run_text(run: RunConfig) -> str:
    """Return the text of the bundle's run file: the same run, with model, store and DeepSpeed file in the bundle."""
    tree = plain_tree(run)
    tree["bundle"] = "."
    tree["data"]["store"] = "auto"
    if run.engine.deepspeed:
        tree["engine"]["deepspeed"] = DEEPSPEED_NAME
    return dump_toml(build_run(tree))


def _same(held: Bundle, contents: _Contents) -> Bundle:
    """Return the existing bundle. Raises ConfigError if it is of another run, DataError if it is damaged."""
    wanted = {name: _digest(source) for name, source in contents.files.items()}
    there = {name: str(entry["sha256"]) for name, entry in held.files.items()}
    other = [name for name in sorted({*wanted, *there}) if wanted.get(name) != there.get(name)]
    if RUN_NAME in other and _is_same_run(held.path / RUN_NAME, contents):
        other.remove(RUN_NAME)
    other += [key for key, value in contents.asked.items() if held.made_for.get(key) != value]
    if other:
        raise ConfigError(
            f"{str(held.path)!r} is a bundle of something else ({', '.join(other)} differ): name another folder, or "
            "remove that one."
        )
    damage = held.damage()
    if damage:
        raise DataError("\n".join([*damage, f"Remove {str(held.path)!r} and make the bundle again."]))
    return held


def _is_same_run(path: Path, contents: _Contents) -> bool:
    """Return True if a bundle's run file, perhaps of an earlier version, describes the run that would be written."""
    return dump_toml(build_run(read_run_file(path))).encode() == contents.files[RUN_NAME]


def _write(target: Path, contents: _Contents) -> Bundle:
    partial = target.with_name(f"{target.name}.tmp-{uuid.uuid4().hex[:12]}")
    try:
        entries = {name: _write_file(source, partial / name) for name, source in contents.files.items()}
        for name, digest in contents.known.items():
            if entries[name]["sha256"] != digest:
                raise DataError(f"{contents.files[name]!s}: is damaged. Remove its folder: it is prepared again then.")
        for name, leads_to in contents.links.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).symlink_to(leads_to)
        bundle = Bundle(target, contents.asked, contents.store, entries, __version__)
        _write_file(bundle.to_bytes(), partial / BUNDLE_NAME)
        for folder in (path for path in (partial, *partial.rglob("*")) if path.is_dir()):
            sync_folder(folder)
        partial.rename(target)
        sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return bundle


def _write_file(source: Path | bytes, target: Path) -> FileEntry:
    """Copy a file or write a text, flush it, and return its entry: what was written, hashed on the way."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with _reading(source) as reading, hashed_file(target) as writing:
        while chunk := reading.read(_READ_BYTES):
            writing.write(chunk)
    return writing.entry


def _digest(source: Path | bytes) -> str:
    return hashlib.sha256(source).hexdigest() if isinstance(source, bytes) else sha256_of(source)


def _reading(source: Path | bytes) -> BinaryIO:
    """Open a stream of the source's bytes. Raises ConfigError for a file that cannot be read."""
    if isinstance(source, bytes):
        return io.BytesIO(source)
    try:
        return open_regular(source)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", "") or error
        raise ConfigError(f"{str(source)!r}, which the run needs, cannot be read ({reason}).") from error
