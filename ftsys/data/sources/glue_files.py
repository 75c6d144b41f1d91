"""Finds the splits of a GLUE task in a folder of GLUE's own TSV files, by a table of file and column names."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ftsys.data.sources.dialect import UNQUOTED
from ftsys.data.sources.rows import Columns
from ftsys.data.sources.text_files import TableFile, check_file
from ftsys.did_you_mean import question
from ftsys.errors import DataError
from ftsys.tasks import GLUE, Task


@dataclass(frozen=True)
class Layout:
    """Names of files and columns for some splits of one task.

    `folders` are the known names of the task's folder. `files` maps a split to the known names of its file. `label` is
    the label's column, which test files may lack. `header` names the fields of files without a header line. With
    `has_short_rows`, rows with fewer fields than the header are left out of labelled splits, as the Hub's version does.
    """

    folders: tuple[str, ...]
    files: Mapping[str, tuple[str, ...]]
    texts: tuple[str, ...]
    label: str
    header: tuple[str, ...] | None = None
    has_short_rows: bool = False


_LABELLED = {"train": ("train.tsv",), "validation": ("dev.tsv",)}
_TEST = {"test": ("test.tsv",)}
_PLAIN = _LABELLED | _TEST
_MNLI = {
    "train": ("train.tsv",),
    "validation_matched": ("dev_matched.tsv",),
    "validation_mismatched": ("dev_mismatched.tsv",),
    "test_matched": ("test_matched.tsv",),
    "test_mismatched": ("test_mismatched.tsv",),
}
_AX = {"test": ("diagnostic.tsv", "AX.tsv", "ax.tsv", "test.tsv")}
_AX_FULL = {"test": ("diagnostic-full.tsv",)}
_SENTENCES = ("sentence1", "sentence2")

LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "cola": (
        Layout(("CoLA",), _LABELLED, ("sentence",), "label", header=("source", "label", "mark", "sentence")),
        Layout(("CoLA",), _TEST, ("sentence",), "label"),
    ),
    "sst2": (Layout(("SST-2",), _PLAIN, ("sentence",), "label"),),
    "mrpc": (Layout(("MRPC",), _PLAIN, ("#1 String", "#2 String"), "Quality"),),
    "stsb": (Layout(("STS-B",), _PLAIN, _SENTENCES, "score"),),
    "qqp": (Layout(("QQP",), _PLAIN, ("question1", "question2"), "is_duplicate", has_short_rows=True),),
    "mnli": (Layout(("MNLI",), _MNLI, _SENTENCES, "gold_label"),),
    "qnli": (Layout(("QNLI",), _PLAIN, ("question", "sentence"), "label"),),
    "rte": (Layout(("RTE",), _PLAIN, _SENTENCES, "label"),),
    "wnli": (Layout(("WNLI",), _PLAIN, _SENTENCES, "label"),),
    "ax": (
        Layout(("diagnostic", "AX"), _AX, _SENTENCES, "label"),
        Layout(("diagnostic", "AX"), _AX_FULL, ("Premise", "Hypothesis"), "Label"),
    ),
}
"""The layouts of each task. Columns are found by name, so that their order and additional columns do not matter."""


def glue_splits(folder: Path, task: Task) -> dict[str, TableFile]:
    """Find the files of `task` by split, in the task's order; `folder` is the task's folder or contains it.

    Test files may be absent. Raises DataError for a task that is not GLUE's, and for a folder or file that is missing
    or empty.
    """
    if not is_glue(task):
        raise DataError(
            f"data.source={str(folder)!r} is a folder, which only GLUE's tasks have ({', '.join(LAYOUTS)}), and the "
            f"task is {task.name!r}.{question(task.name, LAYOUTS)} For a task of your own name a file for each split."
        )
    home = _task_folder(folder, task)
    found = {split: _find(home, task, split) for split in task.splits}
    splits = {split: file for split, file in found.items() if file is not None}
    for file in splits.values():
        check_file(file.path)
    return splits


def tasks_in(folder: Path) -> list[Task]:
    """Return GLUE's tasks that have a folder of their own in `folder`. Raises DataError if there is none."""
    found = [
        GLUE[name] for name, layouts in LAYOUTS.items() if any((folder / own).is_dir() for own in layouts[0].folders)
    ]
    if not found:
        known = ", ".join(layouts[0].folders[0] for layouts in LAYOUTS.values())
        raise DataError(f"{folder}: holds no folder of a GLUE task ({known}). Name a folder of GLUE's files.")
    return found


def is_glue(task: Task) -> bool:
    """Return True if the task has the columns and labels of GLUE's task of that name; metrics and splits may differ."""
    known = GLUE.get(task.name)
    return known is not None and (task.columns, task.labels, task.regression) == (
        known.columns,
        known.labels,
        known.regression,
    )


def _task_folder(folder: Path, task: Task) -> Path:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder. Correct data.source, or use 'hub'.")
    layouts = LAYOUTS[task.name]
    for name in layouts[0].folders:
        if (folder / name).is_dir():
            return folder / name
    own = [name for layout in layouts for names in layout.files.values() for name in names]
    if not any((folder / name).exists() for name in own):
        raise DataError(
            f"{folder} has no folder {' or '.join(map(repr, layouts[0].folders))}, and none of "
            f"{', '.join(sorted(set(own)))} in it, so there is no {task.name!r}. "
            "Point data.source to a folder of GLUE's files."
        )
    return folder


def _find(home: Path, task: Task, split: str) -> TableFile | None:
    """Return the file of a split; None for a test split that does not exist. Raises DataError for any other."""
    candidates = [(layout, name) for layout in LAYOUTS[task.name] for name in layout.files.get(split, ())]
    for layout, name in candidates:
        if (home / name).exists():
            labelled = split not in task.test_splits
            columns = Columns(layout.texts, layout.label, labelled)
            return TableFile(home / name, columns, layout.header, UNQUOTED, layout.has_short_rows and labelled)
    if split in task.test_splits:
        return None
    raise DataError(
        f"{home / candidates[0][1]}: no such file, so there is no {split} split. Copy or download it again."
    )
