"""Tests the text that a terminal shows in the end, for a log, and a terminal with another's size."""

import io
import os
import termios
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.agent.terminal import PlainText, copy_size, make_terminal


def plain(data: bytes, size: int = 1 << 16) -> bytes:
    text = PlainText()
    return b"".join(text.feed(data[at : at + size]) for at in range(0, len(data), size)) + text.end()


@pytest.mark.parametrize(
    ("shown", "logged"),
    [
        (b"plain\n", b"plain\n"),
        (b"\x1b[1mbold\x1b[0m\n", b"bold\n"),
        (b"a\r\nb\n", b"a\nb\n"),
        (b"10%\r20%\r30%\n", b"30%\n"),
        (b"10%\r\x1b[2K20%\n", b"20%\n"),
        (b"\x1b[?25l1/2\n1/4\r\x1b[2K\x1b[1A\x1b[2K2/2\n2/4\n\x1b[?25hdone\n", b"2/2\n2/4\ndone\n"),
        (b"\x1b]0;title\x07text\n", b"text\n"),
        (b"no end", b"no end\n"),
        (b"", b""),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_what_is_seen_in_the_end(shown: bytes, logged: bytes, size: int) -> None:
    assert plain(shown, size) == logged


@given(st.text(st.characters(blacklist_categories=["Cc", "Cs"])), st.integers(1, 9))
def test_text_stays_as_it_is(text: str, size: int) -> None:
    data = "".join(f"{line}\n" for line in text.split()).encode()
    assert plain(data, size) == data


def test_a_line_is_passed_on_at_once_where_no_bar_is_drawn() -> None:
    assert PlainText().feed(b"first\nsec") == b"first\n"


def test_a_bar_holds_few_lines_back() -> None:
    text = PlainText()
    out = text.feed(b"\x1b[?25l" + b"".join(b"%d\n" % number for number in range(100)))
    assert out.splitlines()[-1] == b"91"


def test_a_real_bar() -> None:
    from rich.console import Console
    from rich.progress import Progress

    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=60)
    with Progress(console=console, auto_refresh=False) as progress:
        outer, inner = progress.add_task("train", total=3), progress.add_task("evaluate", total=3)
        for _ in range(3):
            progress.advance(outer)
            progress.advance(inner)
            progress.refresh()
            console.print("a line above the bars")
    lines = plain(stream.getvalue().encode(), 7).decode().splitlines()
    assert [line.split()[0] for line in lines] == ["a", "a", "a", "train", "evaluate"]
    assert "100%" in lines[-1]


def test_a_terminal_like_another() -> None:
    real, real_side = os.openpty()
    termios.tcsetwinsize(real, (33, 77))
    master, slave = make_terminal(real_side)
    try:
        assert os.isatty(slave)
        assert os.get_terminal_size(slave) == (77, 33)
        os.write(slave, b"a\n")
        assert os.read(master, 10) == b"a\n"  # not changed: the real terminal does that
        termios.tcsetwinsize(real, (10, 20))
        copy_size(real_side, master)
        assert os.get_terminal_size(slave) == (20, 10)
    finally:
        for handle in (real, real_side, master, slave):
            os.close(handle)


def test_what_is_no_terminal_has_no_size_to_copy() -> None:
    master, slave = os.openpty()
    before = os.get_terminal_size(slave)
    with Path(os.devnull).open() as nowhere:
        copy_size(nowhere.fileno(), master)
    assert os.get_terminal_size(slave) == before
    os.close(master)
    os.close(slave)
