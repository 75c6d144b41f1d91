"""engine.activation_checkpointing, from the run file to the Trainer's arguments."""

from pathlib import Path
from typing import Any

import pytest

from ftsys.config import build_run, resolve_task
from ftsys.errors import ConfigError
from ftsys.train.setup import check_recomputable, training_arguments
from ftsys.train.trainer.arguments import RECOMPUTATION
from launcher.planner.plan import World, make_plan
from tests.parity.models.tiny_models import small_model


def run_of(folder: Path, **engine: Any) -> Any:
    return build_run({"output_dir": str(folder), "task": {"name": "mrpc"}, "engine": engine})


@pytest.mark.parametrize("asked", ["auto", True, False])
def test_it_reaches_the_trainer(asked: Any, tmp_path: Path) -> None:
    run = run_of(tmp_path, activation_checkpointing=asked)
    plan = make_plan(run, World(bf16_supported=True))
    arguments = training_arguments(run, plan, resolve_task(run))
    assert (plan.activation_checkpointing, getattr(arguments, RECOMPUTATION)) == (asked is True, asked is True)
    assert getattr(arguments, f"{RECOMPUTATION}_kwargs") == {"use_reentrant": False}


def test_a_model_that_transformers_cannot_recompute_is_refused(tmp_path: Path) -> None:
    plan = make_plan(run_of(tmp_path, activation_checkpointing=True), World())
    check_recomputable(small_model("bert", labels=2), plan)
    with pytest.raises(ConfigError, match="transformers cannot compute activations of 'albert' models again"):
        check_recomputable(small_model("albert", labels=2), plan)


@pytest.mark.parametrize(
    "name", ["activation_checkpointing", "gradient_checkpointing", "gradient_checkpointing_kwargs"]
)
def test_the_trainer_section_does_not_own_it(name: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"trainer.{name}=True is decided by another section: write engine.activation"
    ):
        build_run({"output_dir": "runs/x", "task": {"name": "mrpc"}, "trainer": {name: True}})


@pytest.mark.parametrize("value", ["yes", 1, "false"])
def test_what_is_no_switch(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"engine\.activation_checkpointing="):
        run_of(Path("runs/x"), activation_checkpointing=value)
