"""The soak's parts: slopes against known ones, and a short soak whose faults are survived."""

import random
from pathlib import Path

import pytest

from tests.end_to_end import soak as soaking
from tests.end_to_end.attempts import make_project
from tests.end_to_end.slopes import slope_of


def test_a_slope_below_levels_of_their_own() -> None:
    chance = random.Random(0)
    groups = [[(x / 100, level + 3.0 * x / 100 + chance.gauss(0, 0.1)) for x in range(200)] for level in (5.0, 500.0)]
    found = slope_of(groups)
    assert found.per_hour == pytest.approx(3.0, abs=4 * found.error)
    assert found.error == pytest.approx(0.1 / (2 / 12**0.5) / 400**0.5, rel=0.15)
    assert found.mean == pytest.approx(255.5, abs=0.1)


@pytest.mark.parametrize("groups", [[], [[(1.0, 2.0)]], [[(1.0, 2.0), (1.0, 3.0), (1.0, 4.0)]]])
def test_too_few_points(groups: list[list[tuple[float, float]]]) -> None:
    with pytest.raises(ValueError, match="no slope"):
        slope_of(groups)


@pytest.mark.long
def test_a_short_soak_goes_on_after_every_fault(
    tmp_path: Path, minilm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soaking, "FAULTS", {"suspend a rank": 1, "stop the run": 1, "kill a rank": 1})
    project = make_project(tmp_path / "project", minilm_folder, soaking.ENDLESS)
    found = soaking.soak(project, 120.0, seed=3, fault_seconds=20.0)
    assert found.attempts >= 2
    assert found.steps > 0
    assert sum(found.faults.values()) >= 3
    assert {sample.rank for sample in found.samples} == {0, 1}
    assert {attempt for attempt, _, _ in soaking.step_samples(project)} >= {1, 2}
