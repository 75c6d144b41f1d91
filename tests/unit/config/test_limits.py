"""Tests that values no run can have are refused where they are read: numbers that overflow, paths that no file has."""

from pathlib import Path

import pytest

from ftsys.config import build_run
from ftsys.errors import ConfigError
from launcher.cli import main

TREE = {"output_dir": "x", "task": {"name": "mrpc"}}
PATHS = (
    "output_dir",
    "bundle",
    "model.name",
    "data.source",
    "data.store",
    "engine.deepspeed",
    "engine.offload",
    "train.resume",
)


def refusal(key: str, value: object) -> str:
    section, _, name = key.partition(".")
    tree = TREE | ({section: {name: value}} if name else {key: value})
    with pytest.raises(ConfigError) as refused:
        build_run(tree)
    return next(message for message in refused.value.messages if message.startswith(f"{key}="))


@pytest.mark.parametrize("key", PATHS)
def test_a_path_has_no_null_character(key: str) -> None:
    value = f"{'nvme:/' if key == 'engine.offload' else ''}a\0b"
    assert refusal(key, value) == f"{key}={value!r} has the character \\0, which no path can have: write it without."


def test_the_path_of_a_split_has_no_null_character() -> None:
    assert "has the character" in refusal("data.source", {"train": "a.csv", "validation": "b\0.csv"})


def test_a_recipe_has_no_null_character() -> None:
    with pytest.raises(ConfigError, match=r"recipe='a\\x00.toml' cannot be read"):
        build_run(TREE | {"recipe": "a\0.toml"})


@pytest.mark.parametrize("value", [1e308, 1_000_001, 10**400], ids=["infinite", "too many", "no float"])
def test_a_number_of_epochs_has_a_limit(value: float) -> None:
    assert refusal("train.epochs", value).endswith("cannot be used: write a number above 0, and 1,000,000 at most.")


WHOLE = ("train.max_steps", "train.eval_every", "batch.global_size", "batch.micro_tokens", "launch.nodes", "lora.r")


@pytest.mark.parametrize("key", WHOLE)
def test_a_whole_number_has_a_limit(key: str) -> None:
    assert refusal(key, 10**400).endswith(" above 0, 9,007,199,254,740,992 at most.")


@pytest.mark.parametrize("rows", ["0", "-1", "9" * 400])
def test_a_number_of_rows_has_limits(rows: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.toml"
    path.write_text('output_dir = "x"\n[task]\nname = "mrpc"\n')
    assert main(["plan", str(path), "--cpu", "--train-rows", rows]) == 2
    assert "--train-rows" in capsys.readouterr().err
