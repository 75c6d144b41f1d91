"""Has files that `datasets` reads, for the fuzzing tests: a saved folder, and the head of a local mirror."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ftsys.data.sources.datasets_files import check_mirror, data_load_errors
from ftsys.score.readers.arrow import DatasetReader

HEAD = b"---\nconfigs:\n- config_name: mrpc\n  data_files:\n  - split: train\n    path: mrpc/train-*\n---\n"
Parts = tuple[str, bytes, Callable[[Path], object], Mapping[str, bytes]]


def saved_files() -> dict[str, bytes]:
    """Return the files of a saved data set by name."""
    from datasets import ClassLabel, Dataset, Features, Value

    kinds = Features({"text": Value("string"), "label": ClassLabel(names=["down", "up"])})
    with tempfile.TemporaryDirectory() as folder:
        Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}, kinds).save_to_disk(folder)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def read_saved(path: Path) -> Any:
    return DatasetReader(path.parent, None).columns


def read_head(path: Path) -> None:
    with data_load_errors("the mirror cannot be loaded", "Copy it again."):
        check_mirror(path.parent)


def files_of_datasets() -> dict[str, Parts]:
    """Return name, content, reader and the files beside it of each file."""
    files = saved_files()
    found: dict[str, Parts] = {f"saved data set's {name}": (name, files[name], read_saved, files) for name in files}
    splits = b'{"splits": ["train", "dev"]}'
    return found | {
        "splits of a saved data set": ("dataset_dict.json", splits, read_saved, {}),
        "head of a mirror": ("README.md", HEAD, read_head, {}),
    }
