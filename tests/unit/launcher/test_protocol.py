"""Tests the messages between the controller and its agents, whole and in pieces."""

from hypothesis import given
from hypothesis import strategies as st

from launcher.protocol import MARK, Message, OrderReader, ReportReader, encode_order, encode_report


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


pieces = st.lists(
    st.one_of(st.binary(max_size=12).filter(lambda text: MARK[:1] not in text), st.integers(0, 9)), max_size=12
)


@given(pieces, st.lists(st.integers(1, 7), max_size=60))
def test_reports_are_found_in_a_ranks_output_however_it_is_cut(parts: list[bytes | int], cuts: list[int]) -> None:
    stream = b"".join(encode_report("rank_exit", rank=part) if isinstance(part, int) else part for part in parts)
    expected: list[Message | bytes] = [
        {"kind": "rank_exit", "rank": part} if isinstance(part, int) else part for part in parts
    ]
    reports, found = ReportReader(), []
    for size in [*cuts, len(stream)]:
        found += list(reports.feed(stream[:size]))
        stream = stream[size:]
    assert joined([*found, reports.end()]) == joined(expected)


def test_a_report_that_never_ends_is_not_lost() -> None:
    reports = ReportReader()
    assert list(reports.feed(b"text" + MARK + b'{"kind"')) == [b"text"]
    assert reports.end() == MARK + b'{"kind"'


def test_text_is_passed_on_at_once() -> None:
    assert list(ReportReader().feed(b"train: 1/5")) == [b"train: 1/5"]


def test_a_report_with_other_output_in_it_is_text() -> None:
    """As where srun mixes the output of ranks: the reader must not end, since the controller waits for it."""
    broken = MARK + b'{"kind": "rank_ex train: 1/5 it", "ra\n'
    found = ReportReader().feed(broken + encode_report("rank_exit", rank=1))
    assert list(found) == [broken, {"kind": "rank_exit", "rank": 1}]
