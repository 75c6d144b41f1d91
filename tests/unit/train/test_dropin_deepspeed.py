"""What DeepSpeed's own defaults would change in a script with a JSON of its own is set or said."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ftsys.train.dropin_deepspeed import fill_silent_keys, prepare_for_script


@pytest.fixture(autouse=True)
def one_rank(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A process that has a launcher, and no compiled ops."""
    for name, value in {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "TORCH_EXTENSIONS_DIR": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)


def arguments(config: dict[str, Any] | None, **more: Any) -> Any:
    return SimpleNamespace(**{"deepspeed": config, "ddp_timeout": 1800} | more)


@pytest.mark.parametrize(("seconds", "minutes"), [(1800, "30"), (61, "2"), (60, "1")])
def test_groups_get_the_time_out_of_the_arguments_not_ten_minutes(seconds: int, minutes: str) -> None:
    environ: dict[str, str] = {}
    prepare_for_script(arguments({}, ddp_timeout=seconds), environ)
    assert "DEEPSPEED_TIMEOUT" not in environ, "no DeepSpeed, nothing to set"
    prepare_for_script(arguments({"zero_optimization": {"stage": 1}}, ddp_timeout=seconds), environ)
    assert environ["DEEPSPEED_TIMEOUT"] == minutes


def test_the_users_own_time_out_stays() -> None:
    environ = {"DEEPSPEED_TIMEOUT": "7", "ACCELERATE_USE_DEEPSPEED": "true"}
    prepare_for_script(arguments(None), environ)
    assert environ["DEEPSPEED_TIMEOUT"] == "7"


@pytest.mark.parametrize(("value", "warned"), [(False, True), (True, False), ("auto", False), (None, False)])
def test_an_overflow_check_that_is_off_is_said(value: Any, warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    bf16 = {"enabled": True} | ({} if value is None else {"check_grad_overflow": value})
    with caplog.at_level(logging.WARNING):
        prepare_for_script(arguments({"bf16": bf16}), {})
    assert ("check_grad_overflow = false" in caplog.text) == warned


def test_deepspeeds_own_default_checks_for_overflow() -> None:
    """A JSON that says nothing relies on it: older versions skipped the check."""
    from deepspeed.runtime.precision_config import DeepSpeedBF16Config

    assert DeepSpeedBF16Config(enabled=True).check_grad_overflow is True


@pytest.mark.parametrize(
    ("config", "norm", "clipping", "said"),
    [({}, 1.0, 1.0, False), ({}, 0.25, 0.25, True), ({}, 0.0, 0.0, True), ({"gradient_clipping": 3}, 0.25, 3, False)],
)
def test_a_silent_file_clips_as_the_arguments_say(
    config: dict[str, Any], norm: float, clipping: float, said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        fill_silent_keys(config, norm)
    assert config["gradient_clipping"] == clipping
    assert ("not DeepSpeed's default of 1.0" in caplog.text) == said
