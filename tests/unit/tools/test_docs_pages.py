"""The generated pages say what the code says, and a command that is documented is one that can be typed."""

import re
import shlex
from pathlib import Path

import pytest

from ftsys import cli as ftsys_cli
from ftsys.config import known_keys, split_overrides
from launcher import cli as launcher_cli
from tools.docs.commands import Main, asked_parser
from tools.docs.markdown import sentence, table
from tools.docs.pages import DOCS, PAGES
from tools.docs.run_file import field_texts

MAINS: dict[str, Main] = {"ftsys": ftsys_cli.main, "ftlaunch": launcher_cli.main}


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_what_the_code_says(name: str) -> None:
    committed = (DOCS / name).read_text(encoding="utf-8")
    assert committed == PAGES[name](), f"docs/{name} is out of date: `make docs` writes it anew, then commit it."


def test_every_key_of_the_run_file_has_its_text() -> None:
    texts = field_texts()
    assert texts.keys() == known_keys().keys()
    assert texts["batch.micro_tokens"].startswith("Maximum number of real tokens that a device computes")


OWN_VARIABLES = {
    *("FTSYS_BEFORE", "FTSYS_EXIT_FILE", "FTSYS_GPUS", "FTSYS_JOB", "FTSYS_OLD_WORD_TOLD", "FTSYS_STAGED_STORES"),
    *("FTSYS_OWN_LOG", "FTSYS_PEER", "FTSYS_RUN_DIR"),
}
"""Variables that ftsys sets for its own processes."""


def test_every_environment_variable_is_documented(repository: Path) -> None:
    files = [path for folder in ("ftsys", "launcher") for path in (repository / folder).rglob("*.py")]
    files += [*repository.glob("slurm/*.sh"), *repository.glob("benchmarks/*.py"), *repository.glob("tests/fuzz/*.py")]
    pattern = re.compile(r"\bFTSYS_[A-Z][A-Z_]*[A-Z]\b")
    used = {name for path in files for name in pattern.findall(path.read_text(encoding="utf-8"))}
    page = (DOCS / "reference/environment.md").read_text(encoding="utf-8")
    assert set(pattern.findall(page)) == used - OWN_VARIABLES


def test_every_argument_has_a_help_text() -> None:
    """In the table of a command, the second cell of no row is empty."""
    assert re.findall(r"^\| `.*` \|\s*\|$", PAGES["reference/commands.md"](), re.MULTILINE) == []


def test_options_that_are_documented_exist(repository: Path) -> None:
    """Every command line in a block of README.md and of the pages is held against the parser of its command."""
    pages = [repository / "README.md", *DOCS.rglob("*.md")]
    texts = [page.read_text(encoding="utf-8").replace("\\\n", "") for page in pages]
    blocks = [block for text in texts for block in re.findall(r"```(?:bash|console)\n(.*?)```", text, re.DOTALL)]
    lines = [line for block in blocks for line in re.findall(r"^(?:\$ )?((?:ftsys|ftlaunch) .*)", block, re.MULTILINE)]
    assert len(lines) > 15
    unknown = [f"{line}: {option}" for line in lines for option in _unknown_options(line)]
    assert unknown == []


def _unknown_options(line: str) -> list[str]:
    program, command, *words = split_overrides(shlex.split(line, comments=True))[0]
    if command == "run-glue":
        return []
    asked = [command, words[0]] if command == "bench" else [command]
    known = asked_parser(MAINS[program], asked)._option_string_actions
    return [word for word in words if word.startswith("--") and word not in known]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("machines  (default:\n all)", "Machines (default: all)."),
        ("bf16 weights", "bf16 weights."),
        ("`make demo`", "`make demo`."),
        ("torch's own.", "torch's own."),
    ],
)
def test_a_sentence_starts_large_unless_with_a_name(text: str, expected: str) -> None:
    assert sentence(text) == expected


def test_a_bar_does_not_end_a_cell() -> None:
    assert table(("A", "B"), [("x | y", "1")], right=[1]) == "| A | B |\n| --- | --: |\n| x \\| y | 1 |\n"
