"""What the doctor found, as lines for people and as JSON."""

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
    """Something that was looked at.

    An error would make the run fail, a warning makes it slow or strange. `advice` says what to do; nothing was done.
    """

    severity: Severity
    what: str
    value: str
    advice: str = ""


def ok(what: str, value: str) -> Finding:
    """A finding that all is well."""
    return Finding("ok", what, value)


def warning(what: str, value: str, advice: str) -> Finding:
    """A finding that the run can live with."""
    return Finding("warning", what, value, advice)


def error(what: str, value: str, advice: str) -> Finding:
    """A finding that the run would fail of."""
    return Finding("error", what, value, advice)


def exit_status(findings: Iterable[Finding]) -> int:
    """2 where something would fail, else 0."""
    return BAD_INPUT if any(each.severity == "error" for each in findings) else DONE


def show(findings: Sequence[Finding], seconds: float) -> str:
    """A line or more a finding, errors last, then the sum; ends with a newline."""
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
    """The findings for machines; ends with a newline."""
    fields = {
        "exit": exit_status(findings),
        "seconds": round(seconds, 1),
        "nodes": list(nodes),
        "findings": [asdict(each) for each in findings],
    }
    return json.dumps(fields, indent=2) + "\n"


def names(nodes: Sequence[str]) -> str:
    """Some nodes in words: all of few, the first of many."""
    if len(nodes) <= _NAMED_NODES:
        return ", ".join(nodes)
    return f"{', '.join(nodes[: _NAMED_NODES - 1])} and {len(nodes) - _NAMED_NODES + 1} more"


def by_value(values: Mapping[str, object]) -> str:
    """node -> value in words: "5.23.0 on node1, node2; 5.17.0 on node3", the most frequent value first."""
    nodes = grouped(values)
    return "; ".join(f"{value} on {names(nodes[value])}" for value in nodes)


def grouped(values: Mapping[str, object]) -> dict[str, list[str]]:
    """Value, as text -> the nodes that have it, the most frequent value first."""
    nodes: dict[str, list[str]] = {}
    for node, value in values.items():
        nodes.setdefault("none" if value is None else str(value), []).append(node)
    return dict(sorted(nodes.items(), key=lambda item: -len(item[1])))
