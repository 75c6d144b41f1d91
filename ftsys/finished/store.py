"""Opens the store of a finished run, made again where it is missing."""

from ftsys.data.prepare import ensure_store
from ftsys.data.store.reader import Store
from ftsys.errors import ConfigError, DataError
from ftsys.finished.run import FinishedRun
from ftsys.report.progress import SplitProgress
from ftsys.run_folder.results import are_of_store


def open_store(finished: FinishedRun, split: str) -> Store:
    """Return the store that the run has trained on, with its split `split`.

    Raises DataError if the source has no such split, ConfigError if the data has changed since: relative paths of a
    source may also lead to other files, because they begin in the folder in which a command is started.
    """
    with SplitProgress("prepare") as progress:
        store = ensure_store(finished.run, finished.task, progress)
    if split not in store.splits:
        raise DataError(f"the source of {str(finished.folder)!r} has no split {split!r}, only {sorted(store.splits)}.")
    if not are_of_store(finished.results, store.fingerprint):
        raise ConfigError(
            f"data.source={finished.run.data.source!r} is not the data that {str(finished.folder)!r} was trained on: "
            "it has changed since, or its relative paths begin in another folder. Start the command in the folder in "
            "which the run was started, with the data of then, or train again."
        )
    return store
