"""Provides small data sets of one's own."""

from collections.abc import Sequence
from pathlib import Path


def write_rows(path: Path, labels: Sequence[object]) -> None:
    """Write a CSV file with a text and a label in each row; None leaves the label empty."""
    rows = [f"text number {number},{'' if label is None else label}" for number, label in enumerate(labels)]
    path.write_text("\n".join(["text,label", *rows, ""]))


def write_own_run(folder: Path, model: Path, labels: dict[str, Sequence[object]], more: str = "") -> Path:
    """Write a run file on rows of one's own, by split; classes are "no" and "yes"."""
    for split, values in labels.items():
        write_rows(folder / f"{split}.csv", values)
    source = ", ".join(f'{split} = "{folder}/{split}.csv"' for split in labels)
    (folder / "run.toml").write_text(
        f"""output_dir = "{folder}/run"
[task]
name = "own"
columns = ["text"]
labels = ["no", "yes"]
metrics = ["accuracy"]
[data]
source = {{{source}}}
max_length = 16
[model]
name = "{model}"
[batch]
global_size = 4
[train]
epochs = 2
[engine]
precision = "fp32"
{more}"""
    )
    return folder / "run.toml"
