"""A resumed run computes as it was planned, unless its world or what was asked for has changed."""

import dataclasses
from pathlib import Path

import pytest

from ftsys.config import RunConfig, build_run
from ftsys.errors import CheckpointError, ConfigError, FtsysError
from ftsys.train import planning
from ftsys.train.checkpoint.writer import save_checkpoint
from ftsys.train.planning import PLAN, check_planned_alike, check_same_run, former_plan, plan_document, rank_world
from launcher.planner.plan import Plan, make_plan
from tests.unit.train.checkpoint.test_catalog import full_state


def run_with(**sections: dict[str, object]) -> RunConfig:
    return build_run({"output_dir": "run", "task": {"name": "mrpc"}, **sections})


def planned(run: RunConfig) -> Plan:
    """A plan that no newer version of this program would make."""
    return dataclasses.replace(make_plan(run, rank_world(), train_rows=100), micro_tokens=777)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    run = run_with()
    documents = {PLAN: plan_document(run, planned(run))}
    save_checkpoint(tmp_path, 3, full_state(), {}, "mine", 1, documents)
    return tmp_path


def test_the_same_settings_in_the_same_world_keep_the_plan(checkpoints: Path) -> None:
    run = run_with(train={"watchdog_seconds": 5.0})
    assert former_plan(run, checkpoints) == planned(run)
    named = run_with(train={"resume": str(checkpoints / "step-000003")})
    assert former_plan(named, checkpoints / "elsewhere") == planned(run)


@pytest.mark.parametrize(
    "asked",
    [
        {"engine": {"precision": "fp32"}},
        {"batch": {"micro_tokens": 512}},
        {"trainer": {"max_grad_norm": 0.5}},
        {"train": {"resume": "never"}},
    ],
    ids=str,
)
def test_other_settings_are_planned_anew(checkpoints: Path, asked: dict[str, dict[str, object]]) -> None:
    assert former_plan(run_with(**asked), checkpoints) is None


def test_another_world_is_planned_anew(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "rank_world", lambda: dataclasses.replace(rank_world(), ranks=2, local_ranks=2))
    assert former_plan(run_with(), checkpoints) is None


def test_no_plan_or_a_damaged_one_is_planned_anew(checkpoints: Path, tmp_path: Path) -> None:
    assert former_plan(run_with(), tmp_path / "nothing") is None
    text = (checkpoints / "step-000003" / PLAN).read_text()
    (checkpoints / "step-000003" / PLAN).write_text(text.replace("777", "778"))
    assert former_plan(run_with(), checkpoints) is None
    with pytest.raises(CheckpointError, match="step-000009"):
        former_plan(run_with(train={"resume": str(checkpoints / "step-000009")}), checkpoints)


def test_ranks_that_plan_differently_are_told_which_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(run_with())
    check_planned_alike(plan)
    monkeypatch.setattr(planning, "all_gather_json", lambda own: [own, own | {"micro_tokens": 512}])
    with pytest.raises(FtsysError, match="micro_tokens 777 on rank 0 and 512 on rank 1"):
        check_planned_alike(plan)


def test_ranks_with_other_rows_in_files_of_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    check_same_run(run_with(), "a" * 64)
    monkeypatch.setattr(planning, "all_gather_json", lambda own: [own, own | {"store": "b" * 64}])
    with pytest.raises(ConfigError, match=r"different runs: store 'a{64}' on rank 0 and 'b{64}' on rank 1"):
        check_same_run(run_with(), "a" * 64)
