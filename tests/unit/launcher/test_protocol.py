"""Tests the messages between the controller and its agents, whole and in pieces."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.protocol import MARK, MAX_MESSAGE_BYTES, Message, OrderReader, ReportReader, encode_order, encode_report


def test_an_order() -> None:
    assert list(OrderReader().feed(encode_order("start", host="a\nb") + encode_order("leave"))) == [
        {"kind": "start", "host": "a\nb"},
        {"kind": "leave"},
    ]


def joined(parts: list[Message | bytes]) -> list[Message | bytes]:
    """Join neighbouring bytes."""
    whole: list[Message | bytes] = []
    for part in parts:
        if isinstance(part, bytes) and whole and isinstance(whole[-1], bytes):
            whole[-1] += part
        elif part != b"":
            whole.append(part)
    return whole


def fields(rank: int) -> Message:
    return {"kind": "rank_exit", "node": 0, "host": "a", "rank": rank, "status": 0}


def report(rank: int) -> bytes:
    return encode_report(**fields(rank))


pieces = st.lists(
    st.one_of(st.binary(max_size=12).filter(lambda text: MARK[:1] not in text), st.integers(0, 9)), max_size=12
)


@given(pieces, st.lists(st.integers(1, 7), max_size=60))
def test_reports_are_found_in_a_ranks_output_however_it_is_cut(parts: list[bytes | int], cuts: list[int]) -> None:
    stream = b"".join(report(part) if isinstance(part, int) else part for part in parts)
    expected: list[Message | bytes] = [fields(part) if isinstance(part, int) else part for part in parts]
    reports, found = ReportReader(), []
    for size in [*cuts, len(stream)]:
        found += list(reports.feed(stream[:size]))
        stream = stream[size:]
    assert joined([*found, reports.end()]) == joined(expected)


def test_a_report_that_never_ends_is_not_lost() -> None:
    reports = ReportReader()
    assert list(reports.feed(b"text" + MARK + b'{"kind"')) == [b"text"]
    assert reports.end() == MARK + b'{"kind"'


def test_a_mark_without_an_end_holds_nothing_up() -> None:
    """A rank may write the mark itself; what follows it is then text, and later reports are found."""
    reader, text = ReportReader(), MARK + b"x" * (MAX_MESSAGE_BYTES + 1)
    assert list(reader.feed(text[:100])) == []
    assert b"".join(piece for piece in reader.feed(text[100:]) if isinstance(piece, bytes)) == text
    assert list(reader.feed(report(1))) == [fields(1)]


def test_text_is_passed_on_at_once() -> None:
    assert list(ReportReader().feed(b"train: 1/5")) == [b"train: 1/5"]


def test_a_report_with_other_output_in_it_is_text() -> None:
    """As where srun mixes the output of ranks: the reader must not end, since the controller waits for it."""
    broken = MARK + b'{"kind": "rank_ex train: 1/5 it", "ra\n'
    found = ReportReader().feed(broken + report(1))
    assert list(found) == [broken, fields(1)]


REPORT = {"kind": "rank_exit", "node": 0, "host": "a", "rank": 1, "status": 0}
WRONG_VALUES: tuple[object, ...] = ("1", None, [], 1.5)
WRONG = [
    *("[" * 100_000, "5", "[]", "null", '"ready"', "{}", '{"kind": []}', '{"kind": "leave", "node": 0, "host": "a"}'),
    *(json.dumps({key: value for key, value in REPORT.items() if key != left_out}) for left_out in REPORT),
    *(json.dumps(REPORT | {name: wrong}) for name in ("node", "rank", "status") for wrong in WRONG_VALUES),
]


@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_what_is_no_report_is_text(text: str) -> None:
    """Over ssh and srun, reports come among what rank 0 writes."""
    line = MARK + text.encode() + b"\n"
    assert list(ReportReader().feed(line + report(1))) == [line, fields(1)]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("ready", {"port": 29500, "gpus": ["0"], "bf16": True, "threads": "because"}),
        ("ready", {"port": None, "gpus": [], "bf16": False, "threads": ""}),
        ("refused", {"reason": "no"}),
        ("rank_exit", {"rank": 3, "status": -9}),
        ("agent_exit", {"status": None, "ranks": 0, "reason": "none"}),
        ("agent_exit", {"status": 1, "ranks": 2, "reason": ""}),
        ("heartbeat", {}),
    ],
)
def test_every_report_is_read(kind: str, values: dict[str, Any]) -> None:
    sent: dict[str, Any] = {"kind": kind, "node": 1, "host": "b", **values}
    assert list(ReportReader().feed(encode_report(**sent))) == [sent]
