"""Puts GLUE, its metric and a model into Hugging Face's caches: `ftsys offline-assets`.

After it, `load_dataset("glue", "mrpc")`, `evaluate.load("glue", "mrpc")` and `from_pretrained(NAME)` work without a
network, in any script.
"""

import argparse
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ftsys.config import DataSection, RunConfig, load_run, resolve_task, split_overrides
from ftsys.console.printer import show
from ftsys.data.hub_offline import OFFLINE_VARIABLES
from ftsys.data.sources.glue_files import is_glue, tasks_in
from ftsys.data.sources.source import Source, open_source
from ftsys.errors import DONE, ConfigError, DataError
from ftsys.model_files.config import BUNDLED
from ftsys.model_files.folder import BUNDLED_HUB_NAME, check_model_folder
from ftsys.offline.hf_caches import (
    HfCaches,
    Placed,
    has_glue,
    hub_name,
    put_glue_metric,
    put_model,
    put_task,
    whole_source,
)
from ftsys.report.log_filters import quiet_libraries
from ftsys.tasks import GLUE

_USAGE = "ftsys offline-assets [RUN.toml | --glue-dir FOLDER] [--hf-home FOLDER] [--section.key VALUE ...]"


@dataclass(frozen=True)
class Assets:
    """The opened sources and the model (Hub name and folder, or None) that are put into the caches."""

    sources: tuple[Source, ...]
    model: tuple[str, Path] | None


def main(words: Sequence[str]) -> int:
    """Fill the caches and print their places and how to use them. Raises ConfigError and DataError for wrong input."""
    words, overrides = split_overrides(list(words))
    parser = argparse.ArgumentParser(prog="ftsys offline-assets", usage=_USAGE, description=__doc__, allow_abbrev=False)
    parser.add_argument("run_file", nargs="?", metavar="RUN.toml", help="take task, source and model from a run file")
    parser.add_argument("--glue-dir", type=Path, metavar="FOLDER", help="take every task of a folder of GLUE's files")
    parser.add_argument("--hf-home", type=Path, metavar="FOLDER", help="fill this folder, to be used as HF_HOME")
    options = parser.parse_args(words)
    quiet_libraries()
    if (options.run_file is None) == (options.glue_dir is None):
        raise ConfigError(f"name a run file or a folder of GLUE's files, one of the two: {_USAGE}")
    if options.glue_dir is not None:
        ConfigError.raise_if(f"{word!r} needs a run file." for word in overrides)
        assets = of_glue_folder(options.glue_dir)
    else:
        assets = of_run(load_run(options.run_file, overrides))
    caches = HfCaches.under(options.hf_home) if options.hf_home else HfCaches.of_this_process()
    for placed in put(assets, caches):
        show(f"{placed.what:<44} {'put into' if placed.new else 'was in  '} {placed.path}")
    home = {"HF_HOME": shlex.quote(str(options.hf_home.absolute()))} if options.hf_home else {}
    switched = home | dict.fromkeys((*OFFLINE_VARIABLES, "HF_EVALUATE_OFFLINE"), "1")
    show(f"without a network: {' '.join(f'{name}={value}' for name, value in switched.items())} python SCRIPT.py")
    return DONE


def of_run(run: RunConfig) -> Assets:
    """Collect a run's data and model. Raises ConfigError for a task that is not in GLUE, and for a missing model."""
    task = resolve_task(run)
    if not is_glue(task):
        raise ConfigError(
            f"task.name={task.name!r} with the columns {list(task.columns)} is not one of GLUE's tasks "
            f"({', '.join(GLUE)}), so no script loads it by name: your own files and folders need no cache."
        )
    if not has_glue(run, task):
        raise ConfigError(
            f"data.source is a table of files, and scripts that load {task.name!r} by name must get GLUE's own rows: "
            "set it to 'hub' or to a folder of GLUE's files."
        )
    if run.bundle is not None:
        raise ConfigError(f"the run is from the bundle {run.bundle!r}, which contains its caches.")
    folder = check_model_folder(run.model.name)
    name = hub_name(run.model.name)
    return Assets((whole_source(run, task),), (name, folder) if name else None)


def of_glue_folder(folder: Path) -> Assets:
    """Collect every task whose files are in `folder`, and the bundled model if it is installed.

    Raises DataError if the folder has no task, or one that cannot be read.
    """
    sources = tuple(open_source(DataSection(source=str(folder)), task) for task in tasks_in(folder))
    return Assets(sources, _bundled_model())


def _bundled_model() -> tuple[str, Path] | None:
    try:
        return BUNDLED_HUB_NAME, check_model_folder(BUNDLED)
    except ConfigError:
        return None  # the extra with the model is not installed; the data is useful without it


def put(assets: Assets, caches: HfCaches) -> Iterator[Placed]:
    """Fill the caches and yield each thing that was placed.

    Raises StorageError, and at the end DataError for tasks with a bad row, which are left out.
    """
    bad = []
    for source in assets.sources:
        try:
            yield from put_task(source, caches)
        except DataError as error:
            bad.append(str(error))
    yield put_glue_metric(caches)
    if assets.model is not None:
        yield put_model(*assets.model, caches)
    if bad:
        raise DataError("\n".join(bad))
