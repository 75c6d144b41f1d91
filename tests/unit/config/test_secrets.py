"""Tests that no message repeats a secret that stands in the wrong place: messages go into the logs of jobs."""

import argparse
import json
from pathlib import Path

import pytest

from ftsys import cli
from ftsys.config.fields import is_secret
from ftsys.config.load import load_run, parse_overrides
from ftsys.errors import ConfigError
from ftsys.sweep.space import read_space
from launcher.planner.deepspeed_config import read_user_json

SECRET = "hf_SECRET"
KEYS = (
    "trainer.push_to_hub_token",
    "trainer.hub_token",
    "trainer.token",
    "trainer.hub_tokn",
    "trainer.wandb_api_key",
    "trainer.Password",
    "model.token",
    "model.access-key",
    "hub_token",
    "secrets.token",
    "data.first_rows.token",
    "task.a.my_secret",
)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", [SECRET, f'["{SECRET}"]', f'{{ a = "{SECRET}" }}'])
def test_the_value_of_an_unknown_key_is_not_repeated_if_it_may_be_a_secret(
    key: str, value: str, tmp_path: Path
) -> None:
    (tmp_path / "run.toml").write_text('output_dir = "x"\n[task]\nname = "mrpc"\n')
    with pytest.raises(ConfigError) as refused:
        load_run(tmp_path / "run.toml", [f"--{key}", value])
    assert SECRET not in str(refused.value)
    assert key.rpartition(".")[2] in str(refused.value) or key.partition(".")[0] in str(refused.value)


def test_a_word_that_is_no_override_is_not_repeated_if_it_may_be_a_secret() -> None:
    for words in (["-trainer.hub_token=" + SECRET], ["-trainer.hub_token", SECRET], ["-token", SECRET, "rest"]):
        with pytest.raises(ConfigError, match="is not an override") as refused:
            parse_overrides(words)
        assert SECRET not in str(refused.value)


def test_a_space_does_not_repeat_a_secret() -> None:
    with pytest.raises(ConfigError) as refused:
        read_space({"model": {"token": SECRET}})
    assert SECRET not in str(refused.value)


def test_other_values_are_shown(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('output_dir = "x"\n[task]\nname = "mrpc"\n')
    with pytest.raises(ConfigError, match=r"batch\.global_tokens='x' cannot be used"):
        load_run(tmp_path / "run.toml", ["--batch.global_tokens", "x"])
    shown = (
        "batch.micro_tokens",
        "model.tokenizer",
        "train.seed",
        "trainer.include_num_input_tokens_seen",
        "task.name",
    )
    assert [key for key in shown if is_secret(key)] == []


def test_a_deepspeed_file_with_a_secret_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"comet": {"enabled": True, "api_key": SECRET}, "zero_optimization": {"stage": 1}}))
    with pytest.raises(ConfigError, match=r"comet\.api_key looks like a secret.* COMET_API_KEY") as refused:
        read_user_json(path)
    assert SECRET not in str(refused.value)
    run_file = tmp_path / "run.toml"
    run_file.write_text(f'output_dir = "x"\n[task]\nname = "mrpc"\n[engine]\ndeepspeed = "{path}"\n')
    with pytest.raises(ConfigError, match="looks like a secret"):
        cli._bundle(argparse.Namespace(run_file=run_file, output=tmp_path / "bundle"), [])
    path.write_text(json.dumps({"comet": {"api_key": None}, "random_ltd_layer_token_lr_schedule": {"lr": "auto"}}))
    assert read_user_json(path)["comet"] == {"api_key": None}
