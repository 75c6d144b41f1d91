"""Holds the doctor's findings and shows them as lines for people or as JSON."""

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from ftsys.errors import BAD_INPUT, DONE

Severity = Literal["ok", "warning", "error"]

_WIDTH = 100
_NAMED_NODES = 4


@dataclass(frozen=True)
class Finding:
    """The result of a check: `what` was checked, and the `value` that was found.

    An error would make the run fail; a warning makes it slow or strange. `advice`: how to correct it; the doctor
    itself changes nothing.
    """

    severity: Severity
    what: str
    value: str
    advice: str = ""


def ok(what: str, value: str) -> Finding:
    """Return a finding without a problem."""
    return Finding("ok", what, value)


def warning(what: str, value: str, advice: str) -> Finding:
    """Return a finding that does not stop the run."""
    return Finding("warning", what, value, advice)


def error(what: str, value: str, advice: str) -> Finding:
    """Return a finding that would make the run fail."""
    return Finding("error", what, value, advice)


def exit_status(findings: Iterable[Finding]) -> int:
    """Return 2 if there is an error, else 0."""
    return BAD_INPUT if any(each.severity == "error" for each in findings) else DONE


def as_text(findings: Sequence[Finding], seconds: float) -> str:
    """Return the findings as lines, errors last, then their counts; ends with a newline."""
    order: dict[Severity, int] = {"ok": 0, "warning": 1, "error": 2}
    width = max((len(each.what) for each in findings), default=0)
    lines = [line for each in sorted(findings, key=lambda each: order[each.severity]) for line in _lines(each, width)]
    counts = {severity: sum(each.severity == severity for each in findings) for severity in order}
    total = f"{_count(counts['error'], 'error')}, {_count(counts['warning'], 'warning')}, {counts['ok']} ok"
    return "\n".join([*lines, f"{total}, in {seconds:.1f} s"]) + "\n"


def _lines(finding: Finding, width: int) -> list[str]:
    texts = [finding.value, *([f"do: {finding.advice}"] if finding.advice else [])]
    wrapped = [
        line for text in texts for line in textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)
    ]
    first, rest = f"{finding.severity:8} {finding.what:{width}}  ", " " * (11 + width)
    return [(rest if number else first) + line for number, line in enumerate(wrapped)]


def _count(count: int, name: str) -> str:
    return f"{count} {name}{'' if count == 1 else 's'}"


def to_json(findings: Sequence[Finding], nodes: Sequence[str], seconds: float) -> str:
    """Return the findings as JSON; ends with a newline."""
    fields = {
        "exit": exit_status(findings),
        "seconds": round(seconds, 1),
        "nodes": list(nodes),
        "findings": [asdict(each) for each in findings],
    }
    return json.dumps(fields, indent=2) + "\n"


def names(nodes: Sequence[str]) -> str:
    """Return a list of nodes for a message: all of a few, or the first of many."""
    if len(nodes) <= _NAMED_NODES:
        return ", ".join(nodes)
    return f"{', '.join(nodes[: _NAMED_NODES - 1])} and {len(nodes) - _NAMED_NODES + 1} more"


def by_value(values: Mapping[str, object]) -> str:
    """Describe node -> value: "5.23.0 on node1, node2; 5.17.0 on node3", the most frequent value first."""
    nodes = grouped(values)
    return "; ".join(f"{value} on {names(nodes[value])}" for value in nodes)


def grouped(values: Mapping[str, object]) -> dict[str, list[str]]:
    """Return value, as text -> the nodes that have it, the most frequent value first."""
    nodes: dict[str, list[str]] = {}
    for node, value in values.items():
        nodes.setdefault("none" if value is None else str(value), []).append(node)
    return dict(sorted(nodes.items(), key=lambda item: -len(item[1])))
