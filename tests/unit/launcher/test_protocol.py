"""Orders and words between `ftlaunch` and its agents, whole and in pieces."""

from hypothesis import given
from hypothesis import strategies as st

from launcher.protocol import MARK, Message, Orders, Words, order, word


def test_an_order() -> None:
    assert list(Orders().feed(order(do="start", host="a\nb") + order(do="leave"))) == [
        {"do": "start", "host": "a\nb"},
        {"do": "leave"},
    ]


def joined(parts: list[Message | bytes]) -> list[Message | bytes]:
    """The parts with neighbouring bytes as one."""
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
def test_words_are_found_among_what_a_rank_writes_however_it_is_cut(parts: list[bytes | int], cuts: list[int]) -> None:
    stream = b"".join(word(kind="ended", rank=part) if isinstance(part, int) else part for part in parts)
    expected: list[Message | bytes] = [
        {"kind": "ended", "rank": part} if isinstance(part, int) else part for part in parts
    ]
    words, found = Words(), []
    for size in [*cuts, len(stream)]:
        found += list(words.feed(stream[:size]))
        stream = stream[size:]
    assert joined([*found, words.end()]) == joined(expected)


def test_a_word_that_never_ends_is_not_lost() -> None:
    words = Words()
    assert list(words.feed(b"text" + MARK + b'{"kind"')) == [b"text"]
    assert words.end() == MARK + b'{"kind"'


def test_text_is_passed_on_at_once() -> None:
    assert list(Words().feed(b"train: 1/5")) == [b"train: 1/5"]
