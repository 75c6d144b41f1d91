"""The old word "embedded" means the same run as today's words, and is noticed once."""

from pathlib import Path
from typing import Any

import pytest

from ftsys.config import RunConfig, build_run, identity_parts, load_run, run_identity
from ftsys.config.old_words import TODAY, identity_in_todays_words, in_todays_words
from ftsys.errors import RunFolderError
from ftsys.run_folder.claim import claim_run_folder

TREE: dict[str, Any] = {
    "output_dir": "old-run",
    "data": {"max_length": 64, "first_rows": {"train": 64, "validation": 32}},
    "batch": {"global_size": 8},
    "train": {"max_steps": 6, "save_every": 3},
    "engine": {"precision": "fp32"},
}
RECORDED = "9c9d00a40bd5ef892ec2118e315522ab8146e948ddf9e6bb5b14f699ee671865"
"""The identity that the last version before the new words wrote into the checkpoints of this run."""


@pytest.fixture(autouse=True)
def not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """No earlier test has used up the notice."""
    monkeypatch.setenv("FTSYS_OLD_WORD_TOLD", "1")  # so that what a test leaves is removed after it
    monkeypatch.delenv("FTSYS_OLD_WORD_TOLD")


def run_of(source: str, model: str) -> RunConfig:
    return build_run(TREE | {"data": TREE["data"] | {"source": source}, "model": {"name": model}})


OLD, NEW = ("embedded", "embedded"), ("synthetic", "bundled")


def test_the_old_word_is_the_same_run() -> None:
    assert run_of(*OLD) == run_of(*NEW)
    assert (run_of(*OLD).data.source, run_of(*OLD).model.name) == NEW
    assert RunConfig(output_dir="x", data={"source": "embedded"}).data.source == "synthetic"  # type: ignore[arg-type]  # pydantic's


@pytest.mark.parametrize("words", [OLD, NEW])
def test_checkpoints_of_earlier_versions_belong_to_the_run(words: tuple[str, str]) -> None:
    assert run_identity(run_of(*words)) == RECORDED


def test_only_the_two_keys_know_the_old_word() -> None:
    task = {"name": "embedded", "columns": ["a"], "labels": ["embedded", "other"]}
    run = build_run({"output_dir": "x", "task": task, "data": {"source": {"train": "embedded"}}})
    assert run.data.source == {"train": "embedded"}
    assert (run.task.name, run.task.labels) == ("embedded", ("embedded", "other"))
    assert in_todays_words({"task.name": "embedded", "data.source": {"train": "embedded"}}) == {
        "task.name": "embedded",
        "data.source": {"train": "embedded"},
    }


@pytest.mark.parametrize(("first", "second"), [(OLD, NEW), (NEW, OLD)])
def test_a_run_folder_is_continued_across_the_words(tmp_path: Path, first: Any, second: Any) -> None:
    def recorded(words: tuple[str, str]) -> dict[str, Any]:
        """What a version of that time wrote down."""
        parts = identity_parts(run_of(*words))
        return parts | {"data": parts["data"] | {"source": words[0]}, "model": words[1]}

    assert claim_run_folder(tmp_path, recorded(first), overwrite=False).attempt == 1
    assert claim_run_folder(tmp_path, identity_parts(run_of(*second)), overwrite=False).attempt == 2


def test_another_run_is_refused_in_todays_words(tmp_path: Path) -> None:
    parts = identity_parts(run_of(*NEW))
    old = parts | {"data": parts["data"] | {"source": "embedded"}, "model": "embedded"}
    assert identity_in_todays_words(old) == parts
    claim_run_folder(tmp_path, old, overwrite=False)
    with pytest.raises(RunFolderError, match=r"model is 'bundled' there and 'other/model' here\."):
        claim_run_folder(tmp_path, identity_parts(run_of("synthetic", "other/model")), overwrite=False)


def test_the_notice_comes_once_and_names_the_new_words(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('output_dir = "x"\n[data]\nsource = "embedded"\n')
    load_run(tmp_path / "run.toml", ["--model.name", "embedded"])
    load_run(tmp_path / "run.toml")
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert 'data.source = "synthetic"' in told.err
    assert 'model.name = "bundled"' in told.err


def test_todays_words_and_other_ranks_print_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_of(*NEW)
    monkeypatch.setenv("RANK", "1")
    run_of(*OLD)
    assert capsys.readouterr().err == ""


def test_the_defaults_are_todays_words() -> None:
    assert build_run({"output_dir": "x", "task": {"name": "mrpc"}}).model.name == TODAY["model.name"]
