"""Tests the launches of a step whose passes are replayed."""

import pytest

from ftsys.bench.launch_parts.graph_step import our_step_with_graphs
from ftsys.bench.launches import MODELS


@pytest.mark.parametrize(("model", "budget"), [("minilm", 30), ("bert-base", 60)])
def test_a_step_with_graphs_keeps_its_budget_and_asks_nothing(model: str, budget: int) -> None:
    counts = our_step_with_graphs(MODELS[model])
    assert sum(phase.launches for phase in counts.values()) <= budget
    assert counts["passes"].launches <= 12
    assert [phase.waits for phase in counts.values()] == [0, 0, 0]
