"""Tests that JSON, TOML and YAML are parsed in `ftsys.files.untrusted` alone, which limits depth, size and numbers."""

import ast
from collections.abc import Iterator
from pathlib import Path

PARSERS = {("json", "load"), ("json", "loads"), ("tomllib", "load"), ("tomllib", "loads"), ("numpy", "load")}
PARSERS |= {("yaml", name) for name in ("load", "safe_load", "full_load", "unsafe_load")}
OWN = {
    "ftsys/files/untrusted.py": "the readers themselves",
    "ftsys/files/integrity.py": "a text whose checksum was right",
    "ftsys/probe/protocol.py": "an answer of a process that this one has started",
    "ftsys/score/parts.py": "a value that this process has just written",
    "ftsys/train/planning.py": "a value that this process has just written",
    "ftsys/train/trainer/checkpointers/stock_format.py": "a value that this process has just written",
    "ftsys/train/trainer/checkpointers/stock_layout.py": "the arguments of this process' Trainer",
    "launcher/agent/rank.py": "the agent's answer on a socket that only this user may open",
    "launcher/agent/rank_links.py": "a rank's message on that socket",
    "launcher/commands/plan.py": "a plan that this process has just made",
    "launcher/doctor/probe_entry.py": "the question of the ftlaunch that has started this process",
    "launcher/doctor/requirements.py": "ftsys' own pyproject.toml",
    "launcher/protocol.py": "an order of the ftlaunch that has started this process",
}
"""Modules that parse by themselves, and what they parse. Everything else may have been written by others."""


def parsers_called(source: str) -> Iterator[tuple[str, str]]:
    """Yield (module, function) of each call that parses a text by itself."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = ast.unparse(node.func.value)
            if (owner, node.func.attr) in PARSERS:
                yield owner, node.func.attr


def test_other_modules_read_through_untrusted(repository: Path) -> None:
    paths = (path for top in ("ftsys", "launcher") for path in (repository / top).rglob("*.py"))
    found = {
        str(path.relative_to(repository)) for path in paths if any(parsers_called(path.read_text(encoding="utf-8")))
    }
    found = {name for name in found if not name.startswith("ftsys/bench/")}  # its own processes' figures
    assert found - OWN.keys() == set()
    assert OWN.keys() - found == set(), "a reason that is no longer needed"
