"""Fills Hugging Face's caches in their own layout, so that scripts that use the Hub run without it.

    datasets/glue/mrpc/0.0.0/<revision>/            what `load_dataset("glue", "mrpc")` finds offline
    datasets/nyu-mll___glue/mrpc/0.0.0/<revision>/  the same for `load_dataset("nyu-mll/glue", "mrpc")`
    modules/evaluate_modules/metrics/evaluate-metric--glue/<sha256>/glue.py     `evaluate.load("glue", "mrpc")`
    hub/models--OWNER--NAME/{refs/main, snapshots/<revision>/}                  `from_pretrained("OWNER/NAME")`

Each library takes the newest of several revisions by modification time, so that time is updated for what is put there.
"""

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ftsys.cache import check_parents, check_private, make_parents
from ftsys.data.glue_metric import METRIC_PLACE, METRIC_SCRIPT
from ftsys.data.sources.glue_files import is_glue
from ftsys.data.sources.hub import GLUE_REPOSITORY
from ftsys.data.sources.source import Source, open_source
from ftsys.errors import ConfigError
from ftsys.files.atomic import atomic_copy, atomic_open, atomic_write_text
from ftsys.files.folders import remove_tree, sync_folder
from ftsys.files.storage_errors import storage_errors
from ftsys.files.untrusted import file_bytes
from ftsys.model_files.config import BUNDLED, current_snapshot, folder_named
from ftsys.model_files.folder import BUNDLED_HUB_NAME, model_files
from ftsys.model_files.links import refuse_links
from ftsys.tasks import Task

if TYPE_CHECKING:
    from ftsys.config import RunConfig

GLUE_NAMES = ("glue", GLUE_REPOSITORY)
"""The names by which scripts load GLUE: the short one of the Hugging Face course, and today's."""

_LAYOUT_VERSION = 1
"""Increase this number when a source is written in another form, so that a cached older form is not used."""


@dataclass(frozen=True)
class Placed:
    """One entry of a cache: the call that finds it, its path, and `new` for an entry that was written now."""

    what: str
    path: Path
    new: bool


@dataclass(frozen=True)
class HfCaches:
    """The three folders that the libraries search."""

    datasets: Path
    modules: Path
    hub: Path

    @classmethod
    def under(cls, home: Path) -> "HfCaches":
        """Return the caches of a process that is started with HF_HOME=`home`."""
        return cls(home / "datasets", home / "modules", home / "hub")

    @classmethod
    def of_this_process(cls) -> "HfCaches":
        """Return the caches of this process, as its environment variables set them."""
        import datasets.config
        import huggingface_hub.constants

        modules = Path(datasets.config.HF_MODULES_CACHE)
        return cls(Path(datasets.config.HF_DATASETS_CACHE), modules, Path(huggingface_hub.constants.HF_HUB_CACHE))


def has_glue(run: "RunConfig", task: Task) -> bool:
    """Return True if a run's rows are those of GLUE that scripts load by name, not a table of the user's own files."""
    return is_glue(task) and not isinstance(run.data.source, Mapping)


def whole_source(run: "RunConfig", task: Task) -> Source:
    """Open a run's source with all rows: `data.first_rows` is the run's own. Raises what `open_source` raises."""
    return open_source(run.data.model_copy(update={"first_rows": {}}), task)


def put_task(source: Source, caches: HfCaches) -> list[Placed]:
    """Write a GLUE task's rows for `load_dataset`, under both names. Raises what the source raises; StorageError."""
    from ftsys.offline.glue_builder import write_glue

    revision = hashlib.sha256(f"{_LAYOUT_VERSION} {source.fingerprint}".encode()).hexdigest()[:40]
    placed = []
    with storage_errors(caches.datasets):
        for name in GLUE_NAMES:
            folder, new = write_glue(source, caches.datasets, name, revision)
            os.utime(folder)
            placed.append(Placed(f'load_dataset("{name}", "{source.task.name}")', folder, new))
    return placed


def put_glue_metric(caches: HfCaches) -> Placed:
    """Write GLUE's metric for `evaluate.load`, which runs it.

    Raises StorageError, and ConfigError for a folder in which another user could replace it.
    """
    script, new = _write_metric(caches)
    check_parents(Path(os.path.realpath(script)), "set HF_MODULES_CACHE to a folder of your own")
    return Placed('evaluate.load("glue", TASK)', script, new)


def _write_metric(caches: HfCaches) -> tuple[Path, bool]:
    """Write the script and the empty files of its packages; return its path, and True if it was not there already."""
    script = caches.modules / METRIC_PLACE
    with storage_errors(script):
        make_parents(script.absolute())
    for package in list(script.parents)[:4]:
        _put_code(package / "__init__.py", b"")
    new = _put_code(script, METRIC_SCRIPT)
    with storage_errors(script):
        shutil.rmtree(script.parent / "__pycache__", ignore_errors=True)  # Python would run that in its place
        os.utime(script)
    return script, new


def _put_code(path: Path, content: bytes) -> bool:
    """Write a file that will be run, and return True, unless it is there with this content and is the user's own."""
    try:
        check_private(path, path.lstat())
        if file_bytes(path) == content:
            return False
    except (OSError, ValueError, ConfigError):  # it is replaced
        pass
    with atomic_open(path, "wb") as stream:
        stream.write(content)
    with storage_errors(path):
        path.chmod(0o644)  # the umask may let a group write
    return True


def for_bundle(
    run: "RunConfig", task: Task, model: Path, scratch: Path
) -> tuple[dict[str, Path | bytes], dict[str, str]]:
    """Return the files to copy and the links to make in a bundle's `hf` folder, by their paths in that folder.

    The model's files are relative links to the bundle's own copy, so that they stay valid when the bundle is moved.
    Both are empty for rows that are not GLUE's. The files are written to `scratch`, an empty folder. Raises what the
    source raises, and StorageError.
    """
    if not has_glue(run, task):
        return {}, {}
    caches = HfCaches.under(scratch)
    put_task(whole_source(run, task), caches)
    _write_metric(caches)
    written = (path for path in scratch.rglob("*") if path.is_file() and path.suffix != ".lock")
    files: dict[str, Path | bytes] = {str(path.relative_to(scratch)): path for path in written}
    name = hub_name(run.model.name)
    if name is None:
        return files, {}
    snapshot, revision = snapshot_place(name, model, HfCaches.under(Path()))
    files[str(model_home(name, HfCaches.under(Path())) / "refs/main")] = revision.encode()
    up = "../" * (len(snapshot.parts) + 1)
    names = model_files(model, run.model.trust_remote_code)
    return files, {str(snapshot / file): f"{up}model/{file}" for file in names}


def hub_name(name: str) -> str | None:
    """Return the name that `from_pretrained` takes for a run's model; None for a folder, which needs no cache."""
    name = BUNDLED_HUB_NAME if name == BUNDLED else name
    return None if folder_named(name) else name


def put_model(name: str, folder: Path, caches: HfCaches) -> Placed:
    """Copy a model's files for `from_pretrained(name)` from `folder`, which must have passed `check_model_folder`.

    A revision that is in the cache already stays as it is. Raises StorageError, and ConfigError for a link out of it.
    """
    what, home = f'from_pretrained("{name}")', model_home(name, caches)
    with storage_errors(home):
        found = current_snapshot(home)
        if found is not None and _is_whole(found):
            return Placed(what, found, False)
        snapshot, _ = snapshot_place(name, folder, caches)
        partial = snapshot.with_name(f"{snapshot.name}.tmp-{uuid.uuid4().hex[:12]}")
        try:
            if name != BUNDLED_HUB_NAME:  # an installer may have linked the files of its packages
                refuse_links(folder, model_files(folder))
            _copy(folder, model_files(folder), partial)
            if snapshot.exists() and not _is_whole(snapshot):
                remove_tree(snapshot)
            if not snapshot.exists():
                partial.rename(snapshot)
            for place in (snapshot.parent, home):
                sync_folder(place)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    atomic_write_text(home / "refs/main", snapshot.name)
    return Placed(what, snapshot, True)


def _is_whole(snapshot: Path) -> bool:
    """Return False for a snapshot with an empty file or none, as a power cut leaves it."""
    files = [path for path in snapshot.iterdir() if not path.is_dir()]
    return bool(files) and all(path.is_file() and path.stat().st_size for path in files)


def model_home(name: str, caches: HfCaches) -> Path:
    """Return the folder of a model in the Hub's cache."""
    return caches.hub / f"models--{name.replace('/', '--')}"


def snapshot_place(name: str, folder: Path, caches: HfCaches) -> tuple[Path, str]:
    """Return the folder of a model's files in the Hub's cache, and its revision, a hash of the names and sizes."""
    sizes = [f"{file} {(folder / file).stat().st_size}" for file in model_files(folder)]
    revision = hashlib.sha256("\n".join([name, *sizes]).encode()).hexdigest()[:40]
    return model_home(name, caches) / "snapshots" / revision, revision


def _copy(folder: Path, names: Iterable[str], target: Path) -> None:
    target.mkdir(parents=True)
    for name in names:
        atomic_copy(folder / name, target / name)
