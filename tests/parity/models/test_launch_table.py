"""Holds the planner's table of launches to what the counter counts."""

import pytest

from ftsys.bench import launches
from ftsys.bench.launch_parts.steps import our_update
from launcher.planner.cost.launches import LAUNCHES, update_launches
from launcher.planner.model_shape import FAMILIES, model_shape
from tools.launch_table import FAMILIES as COUNTED
from tools.launch_table import LAYERS, counted


def test_every_family_of_the_planner_has_a_row() -> None:
    assert set(LAUNCHES) == set(FAMILIES) == {*COUNTED, "xlm-roberta", "camembert"}


@pytest.mark.parametrize("family", COUNTED)
def test_the_passes_of_a_model(family: str) -> None:
    """Where this fails, `python -m tools.launch_table` writes the table anew."""
    row = LAUNCHES[family]
    found = row.forward_outside + LAYERS * row.forward_layer, row.backward_outside + LAYERS * row.backward_layer
    assert found == counted(family, LAYERS)
    assert row.passes(LAYERS, recomputed=False) == sum(found)


@pytest.mark.parametrize("model", ["minilm", "bert-base", "bert-large"])
def test_clipping_and_update(model: str) -> None:
    step = our_update(launches.MODELS[model])
    expected = step["clip"].launches + step["update"].launches
    assert update_launches(model_shape(launches.MODELS[model], 2)) == pytest.approx(expected, rel=0.4)
