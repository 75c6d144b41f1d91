"""Tests that a run's columns and length travel in the model card, and that any other card is none."""

from pathlib import Path

import pytest

from ftsys.config.build import build_run
from ftsys.errors import ConfigError
from ftsys.model_files.card import CardFacts, read_card
from ftsys.run_folder.model_card import model_card
from ftsys.score.model import find_model
from ftsys.tasks import GLUE
from tests.unit.run_folder.test_results import RESULTS


def test_the_card_of_a_run_has_its_columns_and_length(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    run = build_run({"output_dir": "out", "task": {"name": "mrpc"}, "data": {"max_length": 77}})
    (tmp_path / "README.md").write_text(model_card(RESULTS, run, GLUE["mrpc"]))
    assert read_card(tmp_path) == CardFacts(("sentence1", "sentence2"), 77)
    (tmp_path / "config.json").write_text('{"model_type": "bert", "max_position_embeddings": 512}')
    found = find_model(str(tmp_path))
    assert (found.columns, found.max_length) == (("sentence1", "sentence2"), 77)
    assert find_model(str(tmp_path), 100).max_length == 100


def _doubling_aliases(levels: int) -> str:
    """Return a card of a few hundred bytes whose columns, written out, would be 2 ** levels words."""
    lines = ["a0: &a0 [word]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, levels))]
    return "\n".join(["---", *lines, f"ftsys: {{columns: [*a{levels - 1}], max_length: 9}}", "---", ""])


def merged(levels: int) -> str:
    """Return YAML of a few hundred bytes whose mapping, merged, has 9 ** levels entries on the way."""
    lines = ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, levels))]
    return "\n".join(lines) + "\n"


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "text",
    [
        None,
        "# A model\n",
        "---\nlicense: mit\n---\n",
        "---\n[\n---\n",
        "---\n- a\n---\n",
        "---\nftsys: 3\n---\n",
        "---\nftsys: {columns: [a], max_length: 0}\n---\n",
        "---\nftsys: {columns: [a, b, c], max_length: 9}\n---\n",
        "---\nftsys: {columns: [1], max_length: 9}\n---\n",
        "---\nftsys: {columns: [a], max_length: 2024-01-01}\n---\n",
        "---\nftsys: {columns: [a], max_length: true}\n---\n",
        "---\nftsys: {columns: [a], max_length: 9.5}\n---\n",
        _doubling_aliases(40),
        f"---\n{merged(10)}ftsys: {{columns: [a], max_length: 9}}\n---\n",
        f"---\nftsys: {{columns: [a], max_length: 0x{'f' * 5_000}}}\n---\n",
        f"---\nftsys: {{columns: [a], max_length: 1{':1' * 30_000}}}\n---\n",
        f"---\nftsys: {{columns: [a], max_length: {2**26 + 1}}}\n---\n",
        "---\nx: !!bool x\nftsys: {columns: [a], max_length: 9}\n---\n",
        "---\nx: !!int ''\nftsys: {columns: [a], max_length: 9}\n---\n",
    ],
)
def test_any_other_card_tells_nothing(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "README.md").write_text(text)
    assert read_card(tmp_path) is None


def test_a_cut_tokenizer_config_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert", "max_position_embeddings": 512}')
    (tmp_path / "tokenizer_config.json").write_text('{"model_max')
    with pytest.raises(ConfigError, match=r"tokenizer_config.json: cannot be used \(.*\). Copy or download the model"):
        find_model(str(tmp_path))
