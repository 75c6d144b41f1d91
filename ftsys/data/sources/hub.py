"""Reads GLUE and other repositories of the Hugging Face Hub, local mirrors of them, and data sets in memory."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftsys.cache import download_lease
from ftsys.data.sources.datasets_files import INCOMPLETE, INFO, RAISED, check_mirror, data_load_errors
from ftsys.data.sources.parquet_files import named
from ftsys.data.sources.rows import ROWS_PER_BATCH, Columns, Rows, check_texts
from ftsys.did_you_mean import question
from ftsys.errors import DataError
from ftsys.files.lease import Lease, LeaseTimes, hold_or_wait
from ftsys.files.paths import expanded, there
from ftsys.tasks import Task

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, DatasetDict

GLUE_REPOSITORY = "nyu-mll/glue"
_WITHOUT_INTERNET = (
    "On a machine without internet run `ftsys prepare` once where there is some, with the same HF_HOME; or set "
    "data.source to a folder of GLUE's TSV files, or to 'hub:PATH' with a local copy of the repository."
)
_MIRROR = (
    "Compare README.md and the files of rows with the repository's, or copy it again. A script is not run: write its "
    "rows as Parquet, CSV or JSON files."
)


@dataclass(frozen=True)
class DatasetSplit:
    """One split that `datasets` holds. `place` is its name in errors."""

    dataset: "Dataset"
    columns: Columns
    place: str
    unit: str = "row"

    def read(self, rows_per_batch: int) -> Iterator[Rows]:
        """Yield all rows in order. The ids of a `ClassLabel` become the names of its classes."""
        wanted = self._wanted()
        names = {name: self._class_names(name) for name in self.columns.labels}
        done = 0
        for table in self._tables(wanted, rows_per_batch):
            lines = range(done + 1, done + table.num_rows + 1)
            texts = [
                check_texts(table.column(name).to_pylist(), name, self.place, self.unit, lines)
                for name in self.columns.texts
            ]
            labels = None
            if len(wanted) > len(self.columns.texts):
                cells = [named(table.column(name).to_pylist(), names[name]) for name in self.columns.labels]
                labels = self.columns.joined(cells)
            yield Rows.from_texts(texts, labels, lines)
            done += table.num_rows

    def rows(self) -> int:
        """Return the number of rows."""
        return len(self.dataset)

    def sha256(self) -> str:
        """Return a hex digest of the columns' content; it is computed once, since a data set does not change.

        The fingerprint of `datasets` cannot be used: it is the same for all mirrors of one name, whatever they contain,
        and a mapped data set may have another one in each process.
        """
        return self._sha256

    @cached_property
    def _sha256(self) -> str:
        import pyarrow as pa

        digest = hashlib.sha256(json.dumps(self._all_class_names()).encode())
        for table in self._tables(self._wanted(), ROWS_PER_BATCH):
            # `take` copies the rows: the buffers of a slice keep the bytes around it.
            plain = table.replace_schema_metadata(None).take(pa.array(range(table.num_rows))).combine_chunks()
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, plain.schema) as writer:
                writer.write_table(plain)
            digest.update(memoryview(sink.getvalue()))
        return digest.hexdigest()

    def _wanted(self) -> list[str]:
        """Return the columns that are read, without the label if a test split has none."""
        _, found = self.columns.find(self.dataset.column_names, self.place)
        return [*self.columns.texts] + ([] if found is None else [*self.columns.labels])

    def _tables(self, wanted: list[str], rows_per_batch: int) -> Iterator["pa.Table"]:
        return iter(self.dataset.select_columns(wanted).with_format("arrow").iter(rows_per_batch))

    def _all_class_names(self) -> list[Any]:
        """List (id, name) of the label, or with several columns of labels (column, [(id, name), ...]) of each."""
        found = [(name, sorted(self._class_names(name).items())) for name in self.columns.labels]
        return [each for each in found if each[1]] if self.columns.label_parts else found[0][1]

    def _class_names(self, column: str) -> dict[int, str]:
        """Map ids to names if a label is a `ClassLabel`, or a list of them; otherwise map nothing."""
        feature = self.dataset.features.get(column)
        return dict(enumerate(getattr(getattr(feature, "feature", feature), "names", None) or ()))


def hub_splits(repository: str, task: Task) -> dict[str, DatasetSplit]:
    """Open the splits of a Hub repository or local mirror.

    They are those of the configuration with the task's name, or of a repository's only configuration. Downloads
    once; later calls need only the cache of `datasets`. Raises DataError if neither Hub nor cache has it.
    """
    return dataset_splits(load_splits(repository, task.name), task, repository)


def dataset_splits(data: "Dataset | DatasetDict", task: Task, place: str = "the data set") -> dict[str, DatasetSplit]:
    """Open the splits of a data set in memory; a `Dataset` is the training split. DataError if none is the task's."""
    splits = data if isinstance(data, Mapping) else {task.splits[0]: data}
    found = {
        split: DatasetSplit(splits[split], Columns.of(task, split), f"{place}, split {split!r}")
        for split in task.splits
        if split in splits
    }
    if not found:
        given = next(iter(splits), "")
        raise DataError(
            f"{place} has the splits {', '.join(map(repr, splits))}, and task {task.name!r} reads "
            f"{', '.join(task.splits)}.{question(given, task.splits)} Rename them."
        )
    return found


def is_dataset(source: object) -> bool:
    """Return True for a `Dataset` or `DatasetDict`; does not import `datasets`."""
    kinds = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(source).__mro__}
    return bool(kinds & {"datasets.arrow_dataset.Dataset", "datasets.dataset_dict.DatasetDict"})


def load_splits(repository: str, config: str) -> Any:
    """Load the `DatasetDict` of a Hub repository or local mirror. Raises DataError if neither Hub nor cache has it."""
    if repository == GLUE_REPOSITORY and (cached := _cached_glue(config)) is not None:
        return cached
    folder = expanded(repository)
    if not there(folder) or not folder.is_dir():
        with data_load_errors(f"{repository!r} cannot be loaded from the Hub or its cache", _WITHOUT_INTERNET):
            return _load_in_one_first(repository, config, None)
    with data_load_errors(f"{repository!r} cannot be loaded as a copy of a Hub repository", _MIRROR):
        check_mirror(folder)
        return _load_in_one_first(str(folder), config, _mirror_cache(folder))


def _load_in_one_first(repository: str, config: str, cache: str | None) -> Any:
    """Load in one process while all others wait, and then in these, from the cache that the first one has filled.

    Many ranks at once would send the same requests, and write to one cache, perhaps on a file system without locks.
    """

    def ready() -> Any:
        return _cached_glue(config) if repository == GLUE_REPOSITORY else None

    waited: list[str] = []
    held = hold_or_wait(download_lease(f"data set {repository} {config}"), ready, LeaseTimes(), waited.append)
    if not isinstance(held, Lease):
        return held
    with held:
        if not waited:
            return _load(repository, config, cache)
    return _load(repository, config, cache)


def _load(repository: str, config: str, cache: str | None) -> Any:
    from datasets import load_dataset

    try:
        return load_dataset(repository, config, cache_dir=cache)
    except ValueError as error:
        if "BuilderConfig" not in str(error):
            raise
        # The repository has one task only; otherwise this raises an error that lists its configurations.
        return load_dataset(repository, cache_dir=cache)


def _mirror_cache(folder: Path) -> str:
    """Return a cache folder that belongs to this state of a local mirror alone.

    datasets 5.2 identifies a mirror by its last folder name and configuration. In a common cache, a changed mirror or
    another one of that name would silently give the old rows.
    """
    from datasets import config

    files = sorted(path for path in folder.resolve().rglob("*") if path.is_file())
    state = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return str(Path(config.HF_DATASETS_CACHE) / f"mirror-{hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]}")


def _cached_glue(config: str) -> Any:
    """Load GLUE from the cache of `datasets`; None if the cache does not have it.

    GLUE does not change. Requests from each rank of a cluster would end in HTTP 429, or in 23 s of retries on nodes
    without internet.
    """
    from datasets.packaged_modules.cache.cache import Cache

    found = _cached_folder(config)
    if found is None:
        return None
    name = GLUE_REPOSITORY.split("/")[-1]
    try:
        return Cache(
            repo_id=GLUE_REPOSITORY,
            dataset_name=name,
            config_name=config,
            version=found.parent.name,
            hash=found.name,
        ).as_dataset()
    except RAISED:  # a file is missing or cut short: `load_dataset` downloads or says so
        return None


def _cached_folder(config: str) -> Path | None:
    """Return the newest whole folder of a configuration of GLUE in the cache of `datasets`.

    `datasets` itself takes a folder whose writer was killed, and ends in a FileNotFoundError.
    """
    from datasets import config as settings

    task = Path(settings.HF_DATASETS_CACHE) / GLUE_REPOSITORY.replace("/", "___") / config
    whole = [path for path in task.glob("*/*") if path.suffix != INCOMPLETE and (path / INFO).is_file()]
    return max(whole, key=lambda path: path.stat().st_mtime, default=None)
