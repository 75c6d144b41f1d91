"""Keeps the results of trials, and writes the page that explains the mutants that survived."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tools.docs.markdown import table

RESULTS, EXPLAINED, PAGE = "tests/mutants.json", "tests/mutants.toml", "tests/mutants.md"
HEAD = """# Mutants that survive

`make mutants` writes this page. It changes one place of a module at a time (a mutant) in a copy of the repository, runs
the nearest tests of that module, and counts the changes that make a test fail. `tools/mutants/targets.py` names modules
and tests; `tests/mutants.toml` has the explanations, and the command fails for a survivor without one.
"""


@dataclass
class Result:
    """The trials of one target's sample."""

    mutants: int
    """All mutants of its modules."""
    tried: int = 0
    failed: int = 0
    """Mutants that made a test fail."""
    timed_out: int = 0
    """Mutants with which the tests did not end."""
    survivors: list[str] = field(default_factory=list)
    """Names of the mutants with which all tests passed."""

    @property
    def killed(self) -> int:
        """Mutants that the tests noticed."""
        return self.failed + self.timed_out


@dataclass(frozen=True)
class Explanations:
    """Why survivors cannot or need not be noticed: a sentence for each kind, and one for each mutant of a kind."""

    kinds: dict[str, str]
    by_kind: dict[str, dict[str, str]]

    @classmethod
    def read(cls, path: Path) -> "Explanations":
        """Read the TOML file: `[kinds]`, and a table of mutants for each of them."""
        content = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        kinds = content.pop("kinds", {})
        unknown = content.keys() - kinds.keys()
        if unknown:
            raise ValueError(f"{path}: {', '.join(sorted(unknown))} is not in [kinds]: describe it there.")
        return cls(kinds, content)

    def kind_of(self, name: str) -> str | None:
        """Return the kind of a survivor, None where nothing explains it."""
        return next((kind for kind, mutants in self.by_kind.items() if name in mutants), None)


def read_results(path: Path) -> dict[str, Result]:
    """Return the results by target; none where there is no file yet."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {target: Result(**result) for target, result in content.items()}


def write_results(path: Path, results: Mapping[str, Result]) -> None:
    """Write what `read_results` reads."""
    content = {target: asdict(result) for target, result in results.items()}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def unexplained(results: Mapping[str, Result], explained: Explanations) -> list[str]:
    """Return the survivors without an explanation."""
    return [name for result in results.values() for name in result.survivors if explained.kind_of(name) is None]


def page(results: Mapping[str, Result], explained: Explanations) -> str:
    """Return the Markdown page: a table of targets, then one of survivors for each kind of explanation."""
    parts = [HEAD, _summary(results, explained)]
    for kind, why in explained.kinds.items():
        names = [name for result in results.values() for name in result.survivors if explained.kind_of(name) == kind]
        if names:
            reasons = explained.by_kind[kind]
            rows = [(*_cells(name), reasons[name]) for name in names]
            parts.append(f"## {kind.capitalize()}\n\n{why}\n\n{table(('place', 'change', 'why'), rows)}")
    rest = unexplained(results, explained)
    if rest:
        parts.append(f"## Not explained\n\n{table(('place', 'change'), [_cells(name) for name in rest])}")
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _summary(results: Mapping[str, Result], explained: Explanations) -> str:
    rows = [_row(name, result, explained) for name, result in results.items()]
    everything = Result(
        mutants=sum(result.mutants for result in results.values()),
        tried=sum(result.tried for result in results.values()),
        failed=sum(result.failed for result in results.values()),
        timed_out=sum(result.timed_out for result in results.values()),
        survivors=[name for result in results.values() for name in result.survivors],
    )
    head = ("modules", "mutants", "tried", "killed", "of these by time", "survive, explained", "survive", "killed, %")
    return table(head, [*rows, _row("all", everything, explained)])


def _row(name: str, result: Result, explained: Explanations) -> tuple[str, ...]:
    known = sum(explained.kind_of(survivor) is not None for survivor in result.survivors)
    counts = (result.mutants, result.tried, result.killed, result.timed_out, known, len(result.survivors) - known)
    return (name, *map(str, counts), f"{100 * result.killed / max(result.tried, 1):.0f}")


def _cells(name: str) -> tuple[str, str]:
    """Return the place and the change of a mutant's name as cells of a table."""
    place, _, change = name.partition(": ")
    return place, f"`` {change} ``"
