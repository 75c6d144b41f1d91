"""Files that `datasets` reads and others may have written: names that lead out, wrong content, a killed download."""

import json
import os
import shutil
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from ftsys.data.sources.datasets_files import check_mirror
from ftsys.errors import DataError
from ftsys.score.readers.arrow import DatasetReader
from ftsys.score.readers.rows import Wanted
from ftsys.tasks import GLUE
from tests.unit.data.sources.test_datasets import hub_cache, mirror, opened, read
from tests.unit.model_files.test_card import merged

__all__ = ["hub_cache"]
DEEP = "[" * 3_000


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Return a folder of `save_to_disk` with one row."""
    Dataset.from_dict({"text": ["inside"]}).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def name_rows(folder: Path, name: object) -> None:
    state = json.loads((folder / "state.json").read_text())
    state["_data_files"] = [{"filename": name}]
    (folder / "state.json").write_text(json.dumps(state))


@pytest.mark.parametrize("name", ["../other/data-00000-of-00001.arrow", "{}/other/data-00000-of-00001.arrow", 7, None])
def test_a_saved_folder_names_files_of_its_own(saved: Path, name: str | None) -> None:
    Dataset.from_dict({"text": ["secret"]}).save_to_disk(saved.parent / "other")
    name_rows(saved, name.format(saved.parent) if isinstance(name, str) else name)
    with pytest.raises(DataError, match=r"saved: not a folder that `datasets` wrote .* Name a file, or such a folder"):
        DatasetReader(saved, None)


def test_the_names_of_splits_stay_inside_too(saved: Path, tmp_path: Path) -> None:
    DatasetDict({"test": Dataset.from_dict({"text": ["inside"]})}).save_to_disk(tmp_path / "splits")
    found = DatasetReader(tmp_path / "splits", "test").read(Wanted(("text",), ()))
    assert [row.texts for row in found] == [("inside",)]  # type: ignore[union-attr]  # no fault
    (tmp_path / "splits/dataset_dict.json").write_text('{"splits": ["../saved"]}')
    with pytest.raises(DataError, match=r"'../saved' is not the name of a file in this folder"):
        DatasetReader(tmp_path / "splits", "../saved")
    name_rows(saved, "../x.arrow")
    shutil.move(saved, tmp_path / "splits/dev")
    (tmp_path / "splits/dataset_dict.json").write_text('{"splits": ["dev"]}')
    with pytest.raises(DataError, match=r"'../x.arrow' is not the name of a file in this folder"):
        DatasetReader(tmp_path / "splits", "dev")


@pytest.mark.timeout(120)
def test_a_pipe_in_the_place_of_saved_rows_is_refused(saved: Path) -> None:
    (rows,) = saved.glob("*.arrow")
    rows.unlink()
    os.mkfifo(rows)
    with pytest.raises(DataError, match="it is no regular file"):
        DatasetReader(saved, None)


@pytest.mark.parametrize("file", ["state.json", "dataset_info.json"])
@pytest.mark.parametrize("content", [DEEP, "", "7", '{"_data_files": 7, "features": 7}', "\0"])
def test_damaged_facts_of_a_saved_folder_are_one_error(saved: Path, file: str, content: str) -> None:
    (saved / file).write_text(content)
    with pytest.raises(DataError, match=r"saved: not a folder that `datasets` wrote \(\w+: .*\. Name a file"):
        DatasetReader(saved, None)


def head(folder: Path, configuration: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: mrpc\n  {configuration}\n---\n")
    return folder


OUTSIDE = {
    "an absolute path": "data_files: /etc/*.csv",
    "a folder above": "data_files: ../other/*.parquet",
    "a folder above, in the middle": "data_files: [a.csv, a/../../x.csv]",
    "of a split": "data_files: [{split: train, path: [mrpc/train-*, ../x.parquet]}]",
    "a URL": "data_files: 'https://example.org/x.csv'",
    "an archive": "data_files: 'zip://x.csv::/etc/x.zip'",
    "a home folder": "data_files: ~/x.csv",
    "a folder of data": "data_dir: /etc",
    "a folder of data above": "data_dir: ../other",
}


@pytest.mark.usefixtures("hub_cache")
@pytest.mark.parametrize("configuration", OUTSIDE.values(), ids=OUTSIDE)
def test_a_mirror_names_files_of_its_own_folder(tmp_path: Path, configuration: str) -> None:
    mirror(tmp_path / "other", ["secret", "secret"])
    with pytest.raises(DataError, match=r"README.md: '.*' leads out of the folder\. Copy the files into it"):
        opened(f"hub:{head(tmp_path / 'glue', configuration)}", GLUE["mrpc"])


def test_the_file_of_settings_beside_the_readme_is_checked_too(tmp_path: Path) -> None:
    (tmp_path / ".huggingface.yaml").write_text("configs:\n- config_name: mrpc\n  data_files: ../x.csv\n")
    with pytest.raises(DataError, match=r"\.huggingface\.yaml: '\.\./x\.csv' leads out"):
        check_mirror(tmp_path)


@pytest.mark.timeout(120)
def test_a_readme_that_repeats_itself_by_aliases_is_read_once(tmp_path: Path) -> None:
    lists = "".join(f"  x{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 40))
    check_mirror(head(tmp_path, f"x0: &a0 [x]\n{lists}  data_files: *a39"))
    check_mirror(head(tmp_path, "data_files: &a [x, *a]"))


@pytest.mark.timeout(60)
def test_merge_keys_of_a_readme_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a merge key \(<<\) is not read: write its keys out"):
        check_mirror(head(tmp_path, f"data_files: a.csv\n{merged(10)}"))


WRONG = {
    "broken YAML": "data_files: [",
    "deep YAML": f"data_files: {DEEP}",
    "no text": "data_files: 7",
    "no files": "data_files: x/*",
}


@pytest.mark.usefixtures("hub_cache")
@pytest.mark.parametrize("configuration", WRONG.values(), ids=WRONG)
def test_a_wrong_readme_of_a_mirror_is_one_error(tmp_path: Path, configuration: str) -> None:
    with pytest.raises(
        DataError, match=r"glue' cannot be loaded as a copy of a Hub repository \(\w+: .*\. Compare REA"
    ):
        opened(f"hub:{head(tmp_path / 'glue', configuration)}", GLUE["mrpc"])


@pytest.mark.usefixtures("hub_cache")
def test_a_script_in_a_mirror_is_not_run(tmp_path: Path) -> None:
    (mirror(tmp_path / "glue", ["one", "two"]) / "glue.py").write_text("raise SystemExit('it ran')\n")
    with pytest.raises(DataError, match=r"scripts are no longer supported.* A script is not run: write its rows as"):
        opened(f"hub:{tmp_path / 'glue'}", GLUE["mrpc"])


@pytest.fixture
def cached(tmp_path: Path, hub_cache: Path) -> Path:
    """Return the folder of MRPC in the cache of `datasets`, as a download of the Hub's would have left it."""
    opened(f"hub:{mirror(tmp_path / 'glue', ['one', 'two'])}", GLUE["mrpc"])
    (made,) = hub_cache.glob("mirror-*/glue")
    made.rename(hub_cache / "nyu-mll___glue")
    (folder,) = (path for path in hub_cache.glob("nyu-mll___glue/mrpc/*/*") if path.is_dir())
    return folder


@pytest.mark.parametrize("facts", [False, True])
def test_a_killed_download_beside_the_whole_one_is_not_read(cached: Path, facts: bool) -> None:
    partial = cached.with_name(f"{'f' * 16}.incomplete")
    partial.mkdir()
    if facts:  # it was killed just before the folder got its name: the rows may be there or not
        shutil.copy(cached / "dataset_info.json", partial)
    assert read(opened("hub", GLUE["mrpc"]))[0] == ["one", "two"]


@pytest.mark.parametrize("left", ["dataset_info.json", "an Arrow file", "content"])
def test_what_a_killed_or_damaged_download_leaves_is_one_error(cached: Path, left: str) -> None:
    if left == "dataset_info.json":
        (cached / left).unlink()
        cached.rename(cached.with_name(f"{cached.name}.incomplete"))
    elif left == "content":
        (cached / "dataset_info.json").write_text(DEEP)
    else:
        next(cached.glob("*train*.arrow")).unlink()
    with pytest.raises(DataError, match=r"'nyu-mll/glue' cannot be loaded .*ftsys prepare.*HF_HOME"):
        opened("hub", GLUE["mrpc"])
