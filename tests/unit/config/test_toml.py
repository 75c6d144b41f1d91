"""Tests that a resolved run, written as a run file, loads back equal."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftsys.config import build_run, dump_toml, load_run

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
PATH = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
PLAIN = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def loaded_back(tree: dict[str, Any], folder: Path) -> None:
    run = build_run(tree)
    path = folder / "config.toml"
    path.write_text(dump_toml(run), encoding="utf-8")
    assert load_run(path) == run


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"train": {"max_steps": 3, "learning_rate": 1e-10}},
        {"batch": {"global_tokens": 16384, "micro_tokens": 256}},
        {"engine": {"zero_stage": 3, "offload": "nvme:/a b", "compile": False}},
        {"data": {"source": {"train": 'quo"te\\.csv', "validation": "ümläut\x7f\n.csv"}}},
    ],
    ids=repr,
)
def test_round_trip(tmp_path: Path, change: dict[str, Any]) -> None:
    loaded_back({"output_dir": "runs/x", "task": {"name": "mrpc"}, **change}, tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(name=PATH, key=TEXT, value=PLAIN)
def test_round_trip_of_any_value(tmp_path: Path, name: str, key: str, value: Any) -> None:
    trainer = {"lr_scheduler_kwargs": {key: value}}  # a field that holds a table of any kind
    loaded_back({"output_dir": "o", "task": {"name": "mrpc"}, "model": {"name": name}, "trainer": trainer}, tmp_path)


def test_the_text_of_a_run() -> None:
    text = dump_toml(build_run({"output_dir": "runs/x", "task": {"name": "mrpc"}, "trainer": {"report_to": ["none"]}}))
    assert text.startswith('output_dir = "runs/x"\n\n[task]\nname = "mrpc"\n')
    assert text.endswith('\n[trainer]\nreport_to = ["none"]\n')
    assert "max_steps" not in text


def test_a_whole_table_on_the_command_line_replaces_the_files(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("output_dir = 'o'\ntask.name = 'mrpc'\ndata.source = {train = 'a.csv', validation = 'b.csv'}\n")
    assert load_run(path, ["--data.source", '{test = "c.csv"}']).data.source == {"test": "c.csv"}
    assert load_run(path, ["--data.source.train", "c.csv"]).data.source == {"train": "c.csv", "validation": "b.csv"}
