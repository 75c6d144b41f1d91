"""Tests that windows depend on the rows alone, and that the background's order and errors are those of the stream."""

from collections.abc import Iterator

import pytest

from ftsys.score import windows as module
from ftsys.score.windows import Entry, Place, Window, prepared_ahead, windows


def entry(number: int, text: str = "x", fault: str = "") -> Entry:
    return Entry(Place("f", "line", number), () if fault else (text,), (), fault)


def test_windows_end_by_rows_by_characters_and_by_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHARACTERS", 10)
    entries = [entry(1), entry(2), entry(3), entry(4, "y" * 20), entry(5, fault="bad"), entry(6, fault="bad"), entry(7)]
    found = list(windows(entries, 2))
    assert [(window.index, len(window.rows), len(window.faults)) for window in found] == [
        (0, 2, 0),
        (1, 2, 0),
        (2, 0, 2),
        (3, 1, 0),
    ]
    assert found[2].faults[0] == (Place("f", "line", 5), "bad")


def test_rows_that_are_left_out_become_faults_in_their_places() -> None:
    (window,) = windows([entry(1), entry(2, fault="bad"), entry(3), entry(4, "y")], 9)
    window.leave_out([1], "empty")
    assert [place.number for place, _ in window.faults] == [2, 3]
    assert [(row.place.number, row.texts) for row in window.rows] == [(1, ("x",)), (4, ("y",))]
    assert window.columns == (["x", "y"], None)


def test_the_digest_tells_windows_with_other_rows_apart() -> None:
    first, same, other = (next(windows([entry(1), entry(2, text, fault)], 9)) for text, fault in
                          (("x", ""), ("x", ""), ("y", "")))  # fmt: skip
    assert first.digest() == same.digest() != other.digest()
    assert len({first.digest(), next(windows([entry(1), entry(2, fault="bad")], 9)).digest()}) == 2


def test_items_come_in_order_and_an_error_comes_after_the_items_before_it() -> None:
    def failing() -> Iterator[Window]:
        yield from windows([entry(number) for number in range(6)], 2)
        raise ValueError("broken")

    def prepare(window: Window) -> None:
        window.prepared = window.index * 10

    seen: list[int] = []
    found = prepared_ahead(failing(), prepare)
    with pytest.raises(ValueError, match="broken"):
        seen.extend(window.prepared for window in found)
    assert seen == [0, 10, 20]


def test_no_more_than_a_few_windows_are_made_ahead() -> None:
    made: list[int] = []

    def endless() -> Iterator[Window]:
        while True:
            made.append(len(made))
            yield Window(len(made))

    ahead = prepared_ahead(endless(), lambda window: None)
    next(ahead)
    ahead.close()  # type: ignore[attr-defined]  # a generator
    assert len(made) <= 4
