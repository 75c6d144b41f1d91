"""Opens the folder of a finished run for commands that work on its model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftsys.errors import ConfigError
from ftsys.model_files.config import holds_model
from ftsys.run_folder.layout import MODEL, RUN_FILE
from ftsys.run_folder.results import read_results
from ftsys.run_folder.status import read_status_after_crash
from ftsys.tasks import Task

if TYPE_CHECKING:
    from ftsys.config import RunConfig


@dataclass(frozen=True)
class FinishedRun:
    """A finished run: its folder, which may have been moved since, the resolved run file, and results.json."""

    folder: Path
    run: "RunConfig"
    task: Task
    results: Mapping[str, Any]

    @property
    def model(self) -> Path:
        """The folder of the trained model."""
        return self.folder / MODEL

    def labelled_split(self, name: str | None) -> str:
        """Return the split `name`, or the first evaluation split. Raises ConfigError unless the run has its metrics."""
        labelled = [split for split, found in self.results.get("metrics", {}).items() if set(found) - {"examples"}]
        wanted = name or next((split for split in self.task.evaluation_splits if split in labelled), None)
        if wanted is None or wanted not in labelled:
            raise ConfigError(
                f"{str(self.folder)!r} has no labelled split {wanted or 'to evaluate'!r}. "
                f"Splits with labels: {', '.join(labelled) or 'none'}. Name one with --split."
            )
        return wanted


def open_finished(folder: Path, trust_remote_code: bool = False) -> FinishedRun:
    """Open the folder of a finished run.

    `trust_remote_code` takes the place of its run file's: a folder cannot trust itself.

    Raises ConfigError for a folder without a run and for a run that is not finished, RunFolderError for a damaged
    results.json.
    """
    from ftsys.config import load_run, resolve_task

    if not (folder / RUN_FILE).is_file():
        raise ConfigError(f"{str(folder)!r} is not a run folder: name the output_dir of a finished run.")
    results = read_results(folder)
    if results is None or not holds_model(folder / MODEL):
        state = read_status_after_crash(folder).get("state", "unknown")
        raise ConfigError(
            f"the run in {str(folder)!r} is not finished (its state is {str(state)!r}): it has no "
            f"{'results' if results is None else 'model'}. Start the same `ftsys train` command again first."
        )
    run = load_run(folder / RUN_FILE)
    model = run.model.model_copy(update={"trust_remote_code": trust_remote_code})
    run = run.model_copy(update={"model": model})
    return FinishedRun(folder, run, resolve_task(run), results)
