"""Tests the windows of an output on disk: resuming, joining, refusing, and a full disk."""

import errno
import json
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ftsys.errors import ConfigError, RunFolderError, StorageError
from ftsys.score.formats import Format, format_of
from ftsys.score.parts import Parts, skipped_file
from ftsys.score.windows import Place

COLUMNS: dict[str, Sequence[Any]] = {"id": ["1", None], "label": ["a", "b,c"], "score": [0.25, 0.5]}
COMMAND = {"model": "m", "columns": ("id",)}


def types() -> dict[str, object]:
    import pyarrow as pa

    return {"id": pa.string(), "label": pa.string()}


def form(path: Path) -> Format:
    return format_of(path, types())


def written(path: Path, windows: int) -> Parts:
    parts = Parts(path)
    assert parts.begin(COMMAND, overwrite=False)
    for index in range(windows):
        parts.write(index, form(path).encode(COLUMNS), [])
    return parts


def rows_of(path: Path) -> object:
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.ParquetFile(path).read().to_pydict()
    return path.read_text()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("o.csv", "id,label,score\n" + '1,a,0.25\n,"b,c",0.5\n' * 2),
        (
            "o.jsonl",
            '{"id": "1", "label": "a", "score": 0.25}\n{"id": null, "label": "b,c", "score": 0.5}\n' * 2,
        ),
        ("o.parquet", {"id": ["1", None] * 2, "label": ["a", "b,c"] * 2, "score": [0.25, 0.5] * 2}),
    ],
)
@pytest.mark.parametrize("folder", [".", "date=2026-01-01"])
def test_windows_are_joined_in_order(name: str, content: object, folder: str, tmp_path: Path) -> None:
    path = tmp_path / folder / name
    parts = written(path, 2)
    assert parts.join(2, form(path), list(COLUMNS)) == 0
    assert rows_of(path) == content
    assert list(path.parent.iterdir()) == [path]


def test_values_that_a_format_lacks() -> None:
    columns: dict[str, Sequence[Any]] = {"x": [float("nan"), {"a": 1}], "labels": [["p", "q"], []]}
    assert format_of(Path("o.jsonl"), {}).encode(columns) == (
        b'{"x": null, "labels": ["p", "q"]}\n{"x": {"a": 1}, "labels": []}\n'
    )
    assert format_of(Path("o.csv"), {}).encode(columns) == b'nan,p;q\n"{""a"": 1}",[]\n'


def test_the_same_command_goes_on_and_another_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    parts = written(path, 1)
    again = Parts(path)
    assert again.begin(COMMAND, overwrite=False)
    assert (again.has(0), again.has(1)) == (True, False)
    with pytest.raises(ConfigError, match="begun output of another command"):
        Parts(path).begin({**COMMAND, "model": "n"}, overwrite=False)
    assert Parts(path).begin({**COMMAND, "model": "n"}, overwrite=True)
    assert not parts.has(0)


def test_windows_of_an_older_command_that_still_runs_are_not_joined(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    older, newer = written(path, 1), Parts(path)
    assert newer.begin({**COMMAND, "model": "n"}, overwrite=True)
    older.write(0, b"older\n", [(Place("f", "line", 2), "older")])
    assert not newer.has(0)
    with pytest.raises(RunFolderError, match="another process writes the same output"):
        older.join(1, form(path), ["x"])
    newer.write(0, b"newer\n", [])
    assert newer.join(1, form(path), ["x"]) == 0
    assert path.read_text() == "x\nnewer\n"


def test_a_folder_of_somebody_else_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    parts = Parts(path)
    parts.folder.mkdir()
    (parts.folder / "mine.csv").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match=r"o.csv.parts' .* holds something else. Move it away, or write"):
            parts.begin(COMMAND, overwrite)
    assert (parts.folder / "mine.csv").read_text() == "mine"
    (parts.folder / "mine.csv").replace(parts.folder / ".command.json.0123456789ab.tmp")
    assert parts.begin(COMMAND, overwrite=False), "a folder whose command was killed before it had a name"


@pytest.mark.parametrize("kind", ["writable", "link"])
def test_windows_that_others_may_have_written_are_not_believed(kind: str, tmp_path: Path) -> None:
    parts = written(tmp_path / "o.csv", 1)
    assert stat.S_IMODE(parts.folder.stat().st_mode) == 0o700
    if kind == "link":
        parts.folder.rename(tmp_path / "other")
        parts.folder.symlink_to("other")
    else:
        parts.folder.chmod(0o777)
    with pytest.raises(ConfigError, match=r"o.csv.parts' holds .* but .*(symbolic link|mode 777).* Begin anew"):
        Parts(parts.output).begin(COMMAND, overwrite=False)
    anew = Parts(parts.output)
    assert anew.begin(COMMAND, overwrite=True)
    assert not anew.has(0)
    assert stat.S_IMODE(anew.folder.lstat().st_mode) == 0o700


def test_rows_of_a_window_are_noted_and_compared(tmp_path: Path) -> None:
    parts = written(tmp_path / "o.csv", 1)
    assert parts.keep_rows(0, "ab")
    assert written(tmp_path / "o.csv", 0).keep_rows(0, "ab")
    assert not parts.keep_rows(0, "cd")
    assert Parts(parts.output).begin(COMMAND, overwrite=True)
    assert not parts.keep_rows(0, "cd"), "a killed command that has --overwrite goes on"
    assert Parts(parts.output).begin(COMMAND, overwrite=True, anew=True)
    assert not parts.has(0)
    assert parts.keep_rows(0, "cd")


def test_a_precision_that_was_chosen_is_kept(tmp_path: Path) -> None:
    from ftsys.score.run import chosen_precision

    for precision in ("bf16", "fp32"):
        parts = Parts(tmp_path / f"{precision}.csv")
        assert parts.begin({"precision": precision}, overwrite=False)
        assert chosen_precision("auto", parts.output) == precision
        assert chosen_precision("fp32", parts.output) == "fp32"


def test_a_damaged_command_file_belongs_to_another_command(tmp_path: Path) -> None:
    parts = written(tmp_path / "o.csv", 1)
    (parts.folder / "command.json").write_text("[")
    with pytest.raises(ConfigError, match="another command"):
        parts.begin(COMMAND, overwrite=False)


def test_an_output_that_exists_is_kept_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    path.write_text("old")
    with pytest.raises(ConfigError, match=r"exists.*--overwrite"):
        Parts(path).begin(COMMAND, overwrite=False)
    parts = Parts(path)
    assert parts.begin(COMMAND, overwrite=True)
    parts.write(0, b"1,a,0.25\n", [])
    assert path.read_text() == "old"
    parts.join(1, form(path), list(COLUMNS))
    assert path.read_text().startswith("id,label")


def test_a_process_killed_after_the_output_got_its_name_has_nothing_left_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "o.csv"
    parts = written(path, 1)
    monkeypatch.setattr(parts, "_remove", lambda: None)
    parts.join(1, form(path), list(COLUMNS))
    assert not Parts(path).begin(COMMAND, overwrite=False)
    assert list(tmp_path.iterdir()) == [path]


def test_skipped_rows_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    skipped_file(path).write_text("of an output before")
    parts = written(path, 1)
    parts.write(1, b"", [(Place("f.csv", "line", 7), "é"), (Place("g.parquet", "row", 1), "bad")])
    assert parts.join(2, form(path), list(COLUMNS)) == 2
    lines = [json.loads(line) for line in skipped_file(path).read_text().splitlines()]
    assert lines == [{"file": "f.csv", "line": 7, "reason": "é"}, {"file": "g.parquet", "row": 1, "reason": "bad"}]


def test_a_list_of_skipped_rows_of_an_output_that_is_replaced_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    skipped_file(path).write_text("old")
    written(path, 1).join(1, form(path), list(COLUMNS))
    assert not skipped_file(path).exists()


def test_windows_that_another_process_took_away(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="another process"):
        written(tmp_path / "o.csv", 1).join(2, form(tmp_path / "o.csv"), list(COLUMNS))


@pytest.mark.parametrize("name", ["o.csv", "o.jsonl", "o.parquet"])
def test_a_join_that_replaced_nothing_is_repeated(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may die when its output is whole and has not got its name yet: the former output is not the new one."""
    path = tmp_path / name
    parts = written(path, 1)
    path.write_bytes(b"former")
    parts.begin(COMMAND, overwrite=True)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", _interrupted_for(path))
        with pytest.raises(KeyboardInterrupt):
            parts.join(1, form(path), list(COLUMNS))
    assert path.read_bytes() == b"former"
    with pytest.raises(ConfigError, match=r"exists\. Write to another file, or give --overwrite"):
        Parts(path).begin(COMMAND, overwrite=False)
    again = Parts(path)
    assert again.begin(COMMAND, overwrite=True)
    assert again.has(0)
    again.join(1, form(path), list(COLUMNS))
    assert path.read_bytes() != b"former"


def _interrupted_for(target: Path) -> Callable[[Path, Path], Path]:
    whole = Path.replace

    def replace(path: Path, to: Path) -> Path:
        if to == target:
            raise KeyboardInterrupt
        return whole(path, to)

    return replace


def test_an_output_that_was_joined_is_not_joined_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "o.csv"
    parts = written(path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(parts, "_remove", lambda: None)  # the process died before it
        parts.join(1, form(path), list(COLUMNS))
    assert parts.folder.exists()
    assert Parts(path).begin(COMMAND, overwrite=False) is None
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_keeps_the_windows_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = written(tmp_path / "o.csv", 1)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"the disk is full. Free some space and start again"):
        parts.write(1, b"x", [])
    assert (parts.has(0), parts.has(1)) == (True, False)


def test_an_unknown_ending_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"ends in '.xlsx': give it one of the endings .csv, .jsonl, .parquet"):
        format_of(Path("o.xlsx"), {})
