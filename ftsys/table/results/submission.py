"""Writes a zip for the GLUE server from the test predictions of a table, one for each model."""

import os
import subprocess
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ftsys.config import RunConfig, plain_tree
from ftsys.config.toml import dump_tree
from ftsys.console.child_python import python_command
from ftsys.console.printer import say, show
from ftsys.data.glue_submission import FILES, check_submission
from ftsys.data.sources.source import open_source
from ftsys.errors import FtsysError
from ftsys.files.atomic import atomic_open, atomic_write_text
from ftsys.run_folder.layout import SUBMISSION
from ftsys.run_folder.predictions import SUBMISSIONS
from ftsys.table.pool.slots import LAUNCHER_VARIABLES
from ftsys.table.results.collect import Entry, SeedResult
from ftsys.tasks import GLUE

ZIP = "submission.zip"
DIAGNOSTIC_FILE = "ax.toml"
"""The run file that predicts AX, in the run folder of MNLI."""
_EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The time of each file in the zip, so that equal predictions make equal bytes."""


def write_submissions(folder: Path, entries: Sequence[Entry], which: str) -> None:
    """Write MODEL/submission.zip for each model, and print what the server would refuse.

    `which` chooses the seed of each task: the "best" score on the validation split, or the "first" seed.
    Raises StorageError.
    """
    for model in dict.fromkeys(entry.model for entry in entries):
        files: dict[str, Path] = {}
        for entry in _of_tasks([entry for entry in entries if entry.model == model]):
            chosen = _choose(entry, which)
            if chosen is not None:
                files |= _files(entry, chosen) | (_diagnostic(chosen) if entry.task.name == "mnli" else {})
        path = folder / model / ZIP
        if files:
            _write(path, files)
            _tell(path, check_submission(path))
        else:
            show(f"{model}: no GLUE task has test predictions, so there is no submission")


def _of_tasks(entries: Sequence[Entry]) -> Iterator[Entry]:
    """Yield one entry of a model for each task: of several columns the one that is named like the task.

    A note names the others; where no column has the task's name, none is yielded.
    """
    for task in dict.fromkeys(entry.task.name for entry in entries):
        several = [entry for entry in entries if entry.task.name == task]
        named = several if len(several) == 1 else [entry for entry in several if entry.plain_column == task]
        if len(several) > 1 and task in GLUE:
            columns = ", ".join(entry.column for entry in several)
            taken = f"takes {named[0].column}" if named else "has none of them, because none is named like the task"
            say(f"note: {several[0].model} has the columns {columns} of {task}: the submission {taken}")
        yield from named[:1]


def _choose(entry: Entry, which: str) -> SeedResult | None:
    """Return the cell whose test predictions are taken; None where none is finished."""
    if which == "best" and entry.score is not None:
        best = entry.score.best_seed
        return next(result for result in entry.seeds if result.cell.seed == best)
    return entry.seeds[0] if entry.seeds else None


def _files(entry: Entry, chosen: SeedResult) -> dict[str, Path]:
    """Return the files of a task's test predictions by their names; a task without a test split has none."""
    names = [name for (task, _), name in SUBMISSIONS.items() if task == entry.task.name]
    paths = {name: chosen.cell.folder / SUBMISSION / name for name in names}
    return {name: path for name, path in paths.items() if path.exists()}


def _diagnostic(mnli: SeedResult) -> dict[str, Path]:
    """Predict the diagnostic set AX with an MNLI model; {} where the source has no such set, or that fails.

    The predictions are files of the MNLI run, so they go when it is removed or starts anew with --overwrite.
    """
    cell = mnli.cell
    path = cell.folder / SUBMISSION / "AX.tsv"
    try:
        open_source(cell.run.data, GLUE["ax"])
        if not path.exists():
            run_file = cell.folder / DIAGNOSTIC_FILE
            atomic_write_text(run_file, dump_tree(_of_diagnostic(cell.run)))
            _run(python_command("-m", "ftsys", "predict", str(run_file)))
    except FtsysError as error:
        say(f"note: no AX.tsv: {error}")
        return {}
    return {"AX.tsv": path}


def _of_diagnostic(run: RunConfig) -> dict[str, Any]:
    """Return the run of an MNLI model as one of AX, which has a test split only: without what needs another one."""
    tree = plain_tree(run.model_copy(update={"recipe": None}))  # the trainer section of a recipe would come back
    train = {key: value for key, value in tree["train"].items() if key not in ("keep_best", "early_stopping")}
    data = {key: value for key, value in tree["data"].items() if key != "first_rows"}
    return {**tree, "task": {"name": "ax"}, "data": data, "train": train, "trainer": {}}


def _run(command: Sequence[str]) -> None:
    alone = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
    done = subprocess.run(command, env=alone | {"FTSYS_TASKS": "alone"}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FtsysError(f"`{' '.join(command)}` failed: {done.stderr.strip() or done.returncode}")


def _write(path: Path, files: dict[str, Path]) -> None:
    with atomic_open(path, "wb") as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in (name for name in FILES if name in files):
            archive.writestr(zipfile.ZipInfo(name, _EARLIEST), files[name].read_bytes(), zipfile.ZIP_DEFLATED)


def _tell(path: Path, mistakes: Sequence[str]) -> None:
    if not mistakes:
        show(f"{path}: all {len(FILES)} files are as the GLUE server demands")
        return
    show(f"{path}: the GLUE server would refuse it:")
    for mistake in mistakes:
        show(f"  {mistake}")
