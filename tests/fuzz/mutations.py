"""Changes the bytes of a real file in ways that damage, a bad editor or a stranger would."""

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

DICTIONARY = (
    *(b"", b"\0", b"\xff", b"\xef\xbb\xbf", b"\r", b"\n", b"\t", b'"', b"'", b",", b";", b"\\u0000", b"\\ud800"),
    *(b"{", b"}", b"[", b"]", b"[" * 3_000, b'{"a":' * 3_000, b"null", b"true", b"NaN", b"-Infinity", b"1e999"),
    *(b"-1", b"0", b"9" * 400, b"9" * 5_000, b"2147483648", b"../../x", b"/etc/hosts", b"=", b"#", b"\x1b[2J"),
)

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 0.5, -0.0, 1e300, float("nan"), float("inf")),
    *("", "a", "0", "../x", "/etc/hosts", "\x1b[2J", "\ud800", "a" * 5_000, [], {}, [None], {"a": None}, [[[]]]),
)
"""Values that stand in the place of one in a JSON file."""

Edit = Callable[[bytes], bytes]


def edits() -> st.SearchStrategy[list[Edit]]:
    """Return a strategy for lists of one to four edits."""
    where = st.floats(0, 1, exclude_max=True)
    piece = st.one_of(st.sampled_from(DICTIONARY), st.binary(max_size=8))
    return st.lists(
        st.one_of(
            st.builds(_inserted, where, piece),
            st.builds(_replaced, where, st.integers(1, 64), piece),
            st.builds(_cut, where),
            st.builds(_repeated, where, st.integers(1, 64)),
            st.builds(_flipped, where, st.integers(0, 7)),
            st.builds(with_other_value, where, st.sampled_from(VALUES)),
        ),
        min_size=1,
        max_size=4,
    )


def changed(content: bytes, made: list[Edit]) -> bytes:
    """Return the content after all edits."""
    for edit in made:
        content = edit(content)
    return content


def _inserted(where: float, piece: bytes) -> Edit:
    return _at(where, lambda content, at: content[:at] + piece + content[at:])


def _replaced(where: float, length: int, piece: bytes) -> Edit:
    return _at(where, lambda content, at: content[:at] + piece + content[at + length :])


def _cut(where: float) -> Edit:
    return _at(where, lambda content, at: content[:at])


def _repeated(where: float, length: int) -> Edit:
    return _at(where, lambda content, at: content[: at + length] + content[at:])


def _flipped(where: float, bit: int) -> Edit:
    def flip(content: bytes, at: int) -> bytes:
        return content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :] if content else content

    return _at(where, flip)


def with_other_value(where: float, value: Any) -> Edit:
    """Return the edit that replaces one value of a JSON file, an inner or a whole one. Other files stay as they are."""

    def replace(content: bytes) -> bytes:
        try:
            tree = {"": json.loads(content)}
        except (ValueError, RecursionError):
            return content
        places = list(_places(tree))
        inside, key = places[int(where * len(places))]
        inside[key] = copy.deepcopy(value)
        return json.dumps(tree[""]).encode()

    return replace


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the place of each value, as an object or a list and a key of it."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])


def _at(where: float, change: Callable[[bytes, int], Any]) -> Edit:
    return lambda content: change(content, int(where * len(content)))
