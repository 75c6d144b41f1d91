"""Tests that the model cards of a table's runs have the spread over their seeds."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ftsys.table.results.cards import update_cards

CARD = "---\nlicense: mit\n---\n\n# A model\n\n## Use\n\nAs usual.\n"


def entry(folder: Path, **accuracies: float | None) -> Any:
    """An entry with one finished run for each accuracy."""
    seeds = []
    for name, value in accuracies.items():
        (folder / name / "model").mkdir(parents=True, exist_ok=True)
        metrics = {"validation": {"accuracy": value, "examples": 4}}
        (folder / name / "results.json").write_text(json.dumps({"task": "rte", "metrics": metrics}))
        (folder / name / "model/README.md").write_text(CARD)
        seeds.append(SimpleNamespace(cell=SimpleNamespace(folder=folder / name)))
    return SimpleNamespace(seeds=tuple(seeds))


def test_each_card_has_the_spread_and_a_second_call_changes_nothing(tmp_path: Path) -> None:
    found = entry(tmp_path, a=0.5, b=0.7, c=None)
    update_cards([found])
    cards = {name: (tmp_path / name / "model/README.md").read_text() for name in "abc"}
    assert len(set(cards.values())) == 1
    assert "| validation | accuracy | 2 | 0.6000 | 0.1414 |" in cards["a"]
    assert "As usual." in cards["a"]
    update_cards([found])
    assert {name: (tmp_path / name / "model/README.md").read_text() for name in "abc"} == cards


def test_one_seed_and_a_removed_card_are_left_alone(tmp_path: Path) -> None:
    update_cards([entry(tmp_path / "one", a=0.5)])
    assert (tmp_path / "one/a/model/README.md").read_text() == CARD
    several = entry(tmp_path / "two", a=0.5, b=0.6)
    (tmp_path / "two/a/model/README.md").unlink()
    update_cards([several])
    assert not (tmp_path / "two/a/model/README.md").exists()
    assert "0.5500" in (tmp_path / "two/b/model/README.md").read_text()
