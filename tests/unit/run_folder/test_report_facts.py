"""Tests data.json and ranks.json: what is written is read, and a damaged file is told."""

from pathlib import Path

import pytest

from ftsys.errors import RunFolderError
from ftsys.run_folder.report_facts import (
    MOST_STEPS,
    DataFacts,
    RankFacts,
    read_data_facts,
    read_rank_facts,
    write_data_facts,
    write_rank_facts,
)


def test_data_facts(tmp_path: Path) -> None:
    facts = DataFacts("stores/a", "abc", {"train": [0, 0, 3]})
    write_data_facts(tmp_path, facts)
    assert read_data_facts(tmp_path) == facts
    assert read_data_facts(tmp_path / "none") is None


LENGTHS = '{"store": "a", "fingerprint": "f", "lengths": {"train": [%s]}}'


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"store": "a"}', LENGTHS % -1, LENGTHS % 10**30, LENGTHS % ", ".join([str(2**53)] * 2)],
)
def test_damaged_data_facts(tmp_path: Path, content: str) -> None:
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(RunFolderError, match="is damaged"):
        read_data_facts(tmp_path)


def test_rank_facts_keep_equally_spaced_steps_and_the_last(tmp_path: Path) -> None:
    steps = [(step, 10 * step, 2**40) for step in range(1, 3 * MOST_STEPS)]
    write_rank_facts(tmp_path, [RankFacts(0, "a", 5, 6, steps), RankFacts(1, "b", 5, 6, [])])
    first, second = read_rank_facts(tmp_path) or []
    assert first.steps[-1] == steps[-1]
    assert len(first.steps) == MOST_STEPS
    assert {b[0] - a[0] for a, b in zip(first.steps[:-1], first.steps[1:], strict=True)} == {3}
    assert second == RankFacts(1, "b", 5, 6, [])
    assert read_rank_facts(tmp_path / "none") is None


RANK = '[{"rank": 0, "host": "a", "tokens": 5, "computed_tokens": 6, "steps": [[1, 5, %d]]}]'


@pytest.mark.parametrize("content", ["[", "{}", '[{"rank": "0"}]', RANK % 10**300, RANK % -1])
def test_damaged_rank_facts(tmp_path: Path, content: str) -> None:
    (tmp_path / "ranks.json").write_text(content)
    with pytest.raises(RunFolderError, match="is damaged"):
        read_rank_facts(tmp_path)
