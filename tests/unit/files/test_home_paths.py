"""Tests paths as people write them: "~" of a known and of an unknown user, and names that no file can have."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ftsys.cache import cache_folder
from ftsys.config import RunConfig, build_run, load_run
from ftsys.config.identity import run_identity
from ftsys.console.entry import run_program
from ftsys.data.bundle import Bundle
from ftsys.data.prepare import store_root
from ftsys.data.sources.source import open_source
from ftsys.errors import FtsysError
from ftsys.files.paths import expanded, there
from ftsys.html_report.sections.examples import _texts
from ftsys.probe.host import _places
from ftsys.recipes import recipe_of
from ftsys.run_folder.layout import RESULTS
from ftsys.score.model import find_model
from ftsys.score.readers.inputs import input_file
from ftsys.table.cells import slug
from ftsys.table.spec import read_spec
from ftsys.tasks import GLUE
from ftsys.train.run import _newer_files
from launcher.commands.run import needed_files
from launcher.host.preflight import check_machine

NOBODY, LONG = "~no-such-user-of-ours/x", "x" * 300


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the user's home folder, which is not the current folder."""
    for name in ("home", "work"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


def run_of(**change: Any) -> RunConfig:
    return build_run({"output_dir": "runs/x", "task": {"name": "mrpc"}} | change)


def test_a_home_folder_is_expanded_and_that_of_an_unknown_user_is_not(home: Path) -> None:
    assert (expanded("~"), expanded("~/a")) == (home, home / "a")
    for name in (NOBODY, "~a\0b", "a/~/b", LONG):
        assert expanded(name) == Path(name)


def test_a_name_that_is_too_long_is_not_there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert there(home)
    assert not there(home / LONG)
    monkeypatch.setattr(Path, "exists", _denied)
    with pytest.raises(PermissionError):
        there(home)


def _denied(path: Path) -> bool:
    raise PermissionError(13, "Permission denied", str(path))


READERS: dict[str, Callable[[str], object]] = {
    "data.source": lambda name: open_source(SimpleNamespace(source=name), GLUE["mrpc"]),
    "a file of data.source": lambda name: open_source(SimpleNamespace(source={"train": f"{name}.csv"}), GLUE["mrpc"]),
    "a mirror": lambda name: open_source(SimpleNamespace(source=f"hub:{name}/glue"), GLUE["mrpc"]),
    "an input of score": lambda name: input_file(f"{name}.csv", None, None, "auto"),
    "a model of score": find_model,
    "a recipe": lambda name: recipe_of({"recipe": f"{name}.toml"}),
    "a file that nodes need": lambda name: check_machine({"files": [name], "ranks": None}, ()),
}


@pytest.mark.parametrize("name", [NOBODY, LONG])
@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_path_that_cannot_be_is_the_readers_own_error(reader: Callable[[str], object], name: str) -> None:
    with pytest.raises(FtsysError):
        reader(name)


@pytest.mark.parametrize("name", [NOBODY, LONG])
def test_where_no_file_is_needed_such_a_path_is_no_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTSYS_CACHE", name)
    assert (cache_folder(), store_root(name)) == (Path(name), Path(name))
    run = run_of(model={"name": name}, data={"source": {"train": f"{name}.csv"}})
    assert needed_files("run.toml", run) == ["run.toml"]
    assert slug(name) == name.replace("~", "-").replace("/", "--")
    answer: Any = SimpleNamespace(runs=[SimpleNamespace(run=run)], predictions=[None], split="validation")
    found, reason = _texts([answer], [0], GLUE["mrpc"])
    assert found == {}
    assert reason.startswith(f"The source of the data cannot be read ({name[:200]}")


def test_every_path_of_a_run_has_the_home_folder(home: Path, tmp_path: Path) -> None:
    written = {
        "output_dir": "~/runs/x",
        "bundle": "~/b",
        "data": {"source": "~/glue", "store": "~/stores"},
        "model": {"name": "~/m"},
        "engine": {"deepspeed": "~/ds.json"},
        "train": {"resume": "~/c"},
    }
    run = run_of(**written)
    paths = (run.output_dir, run.bundle, run.data.source, run.data.store, run.model.name, run.engine.deepspeed)
    assert (*paths, run.train.resume) == tuple(
        f"{home}/{name}" for name in ("runs/x", "b", "glue", "stores", "m", "ds.json", "c")
    )
    assert build_run(run.model_dump()) == run
    (tmp_path / "run.toml").write_text('bundle = "~/b"\noutput_dir = "~"\n[task]\nname = "mrpc"\n')
    assert (load_run(tmp_path / "run.toml").bundle, load_run(tmp_path / "run.toml").output_dir) == (
        f"{home}/b",
        str(home),
    )


@pytest.mark.parametrize("name", ["hub", "hub:a/b", "a~b", "runs//x/", "./~/x", NOBODY])
def test_all_other_texts_stay_as_they_are(name: str) -> None:
    run = run_of(output_dir=name, model={"name": name}, data={"source": {"train": name}, "store": name})
    assert {run.output_dir, run.model.name, run.data.store, *run.data.source.values()} == {name}  # type: ignore[union-attr]  # a table
    assert run_of(data={"source": name}).data.source == name


def test_a_run_with_a_home_folder_is_the_one_with_its_path(home: Path) -> None:
    written, plain = (
        run_of(model={"name": f"{place}/m"}, data={"source": {"train": f"{place}/a.csv"}}) for place in ("~", home)
    )
    assert run_identity(written) == run_identity(plain)
    assert run_of(data={"source": "hub:~/glue"}).data.source == f"hub:{home}/glue"


def test_all_parts_look_at_the_same_folder(home: Path, tmp_path: Path) -> None:
    (home / "a.csv").write_text("x")
    run = run_of(output_dir="~/runs/x", data={"source": {"train": "~/a.csv"}})
    assert needed_files("run.toml", run) == ["run.toml", f"{home}/a.csv"]
    Path(run.output_dir).mkdir(parents=True)
    (Path(run.output_dir) / RESULTS).touch()
    os.utime(Path(run.output_dir) / RESULTS, (0, 0))
    assert _newer_files(run, Path(run.output_dir)) == [f"{home}/a.csv is newer than these results"]
    asked: Any = SimpleNamespace(question=SimpleNamespace(run={"output_dir": "~/runs/x", "bundle": "b"}))
    assert _places(asked) == {"output_dir": home / "runs/x"}
    (tmp_path / "run.toml").write_text('output_dir = "~/table"\n')
    assert read_spec(str(tmp_path / "run.toml"), [], tasks=["mrpc"]).folder == home / "table"
    assert not list(Path.cwd().iterdir())


def test_a_bundle_that_was_made_with_a_home_folder_is_of_the_same_run(home: Path) -> None:
    asked = {"model.name": "~/m", "data.source": {"train": "~/a.csv"}, "task.name": "~"}
    made_for = Bundle(home, asked, "0", {}, "1").made_for
    assert made_for == {"model.name": f"{home}/m", "data.source": {"train": f"{home}/a.csv"}, "task.name": "~"}


def test_a_name_that_no_file_can_have_is_wrong_input(capfd: pytest.CaptureFixture[str]) -> None:
    def reads() -> int:
        return len(Path(LONG).read_bytes())

    assert run_program(reads) == 2
    said = capfd.readouterr().err
    assert said == f"error: '{'x' * 80}...': this name is too long for a file or a folder. Correct the path.\n"
