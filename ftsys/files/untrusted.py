"""Reads what a file or a neighbour may have written wrongly: JSON, TOML, YAML, types, names of files.

Every mistake is a ValueError with one short line. The caller adds the file's name and the advice.
"""

import errno
import io
import json
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, TypeAdapter, ValidationError
from typing_extensions import TypedDict

T = TypeVar("T")

_LONGEST_NAME = 255
"""In bytes: the limit of Linux's file systems for a name, far above any path in a folder of ours."""
_TOO_DEEP = "it is nested too deeply"
NOT_REGULAR = "it is no regular file"

MOST_BYTES = 64 * 2**20
"""The limit for a file of settings or facts, far above any that people or ftsys write."""
MOST_GROWN_BYTES = 2**30
"""The limit for a file that grows with the steps or the ranks of a run, or with a vocabulary."""


def open_regular(path: Path | str) -> io.BufferedReader:
    """Open a regular file for reading. Raises OSError, and ValueError for a device or a pipe, without waiting for it.

    A pipe that this process already has, such as /dev/stdin or the /dev/fd/63 of a shell's <(...), is opened as well.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # otherwise a pipe waits for its writer
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode) and not (stat.S_ISFIFO(mode) and str(path).startswith("/dev/")):
            raise ValueError(NOT_REGULAR)
        os.set_blocking(descriptor, True)
        return os.fdopen(descriptor, "rb")
    except BaseException:  # Ctrl-C as well: the descriptor must not stay open
        os.close(descriptor)
        raise


def check_regular(path: Path | str) -> None:
    """Raise as `open_regular` does. Call it before a library opens a file: it would wait for a pipe for ever."""
    open_regular(path).close()


def open_table(path: Path | str) -> io.TextIOWrapper:
    """Open a regular file of UTF-8 text for the csv module. Raises as `open_regular` does."""
    return io.TextIOWrapper(open_regular(path), encoding="utf-8", newline="")


def file_bytes(path: Path | str, most: int = MOST_BYTES) -> bytes:
    """Return the content of a regular file (see `open_regular`). Raises ValueError if it has more than `most` bytes."""
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        data = stream.read(most + 1) if size <= most else b""
    if size > most or len(data) > most:
        raise ValueError(f"it has more than {most >> 20:,} MiB")
    return data


def file_text(path: Path | str) -> str:
    """Return the text of a UTF-8 file, with or without a byte order mark. Raises as `file_bytes` does."""
    return file_bytes(path).decode("utf-8-sig")


MOST_DIGITS = 308
"""The limit for the digits of an integer: every integer within it is also a float, and can be written as text."""
_TOO_LONG = f"an integer has more than {MOST_DIGITS} digits"


def _integer(text: str) -> int:
    if len(text.removeprefix("-")) > MOST_DIGITS:
        raise ValueError(_TOO_LONG)
    return int(text)


def parse_json(data: bytes | str) -> Any:
    """Return the value of a JSON text. Raises ValueError, also for deep nesting and integers above MOST_DIGITS."""
    try:
        return json.loads(data, parse_int=_integer)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


class DoubleKeyError(ValueError):
    """Says which key an object of a JSON text has more than once."""


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    keys = [key for key, _ in pairs]
    double = next(key for key in keys if keys.count(key) > 1)
    raise DoubleKeyError(f"the key {double[:60]!r} is there more than once")


ROW_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_int=_integer)
"""Decodes rows of data, and raises DoubleKeyError for a key that is there twice: `json` takes the last value."""


def parse_row(text: str) -> Any:
    """Return the value of a JSON text as `parse_json` does. Raises DoubleKeyError, which is a ValueError, as well."""
    try:
        return ROW_DECODER.decode(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


def json_object(data: bytes | str) -> dict[str, Any]:
    """Return the value of a JSON text that is an object. Raises ValueError."""
    return _object(parse_json(data))


def row_object(text: str) -> dict[str, Any]:
    """Return the row of data in a JSON text, an object. Raises ValueError, or DoubleKeyError for a key twice."""
    return _object(parse_row(text))


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"it holds a JSON {type(value).__name__}, not an object")
    return value


MOST_LEVELS = 50
"""The limit for the parts of a dotted key of TOML, and for tables and lists inside each other."""
_PART = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_TOML_TOKEN = re.compile(
    r'''"""(?:[^"\\]|\\.|"(?!""))*+"{0,5}|#[^\n]*+|'''
    r"""'''(?:[^']|'(?!''))*+'{0,5}|"""
    rf"(?P<long>(?:{_PART}[ \t]*+\.[ \t]*+){{{MOST_LEVELS}}})|{_PART}",
    re.DOTALL,
)
"""A string, a comment, a key without dots, a number or a word; `long` is the start of a dotted key above the limit."""


def parse_toml(text: str) -> dict[str, Any]:
    """Return the tables of a TOML text. Raises ValueError, also for deep nesting and integers above MOST_DIGITS."""
    for token in _TOML_TOKEN.finditer(text):  # before the parser, which takes time and memory by the square of a key
        if token["long"]:
            line = text.count("\n", 0, token.start()) + 1
            raise ValueError(f"a key has more than {MOST_LEVELS} parts (at line {line})")
    try:
        tree = tomllib.loads(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check_values(tree)
    return tree


def _check_values(tree: dict[str, Any]) -> None:
    """Raise ValueError for values that cannot be worked with: a recursive function fails, or Python's text of them."""
    left: list[tuple[Any, int]] = [(tree, 0)]
    while left:
        value, level = left.pop()
        if level > MOST_LEVELS:
            raise ValueError(_TOO_DEEP)
        if isinstance(value, int) and abs(value) >= 10**MOST_DIGITS:
            raise ValueError(_TOO_LONG)
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        left += [(item, level + 1) for item in inner]


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text. Raises ValueError, also for deep nesting, long integers and merge keys.

    Aliases make one list or mapping appear in many places: visit each once, by its id.
    """
    import yaml

    try:
        return yaml.load(text, _yaml_loader())  # a SafeLoader: it makes plain values only
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError) as error:  # as for `!!bool x`
        raise ValueError(f"no YAML that is read here: {' '.join(str(error).split())[:200]}") from error


@cache
def _yaml_loader() -> Any:
    """Return PyYAML's safe loader without what makes gigabytes of a few lines: merge keys, and endless integers."""
    import yaml

    class Loader(yaml.SafeLoader):
        def flatten_mapping(self, node: Any) -> None:
            if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
                raise ValueError("a merge key (<<) is not read: write its keys out")
            super().flatten_mapping(node)

        def short_integer(self, node: Any) -> int:
            if len(node.value) > MOST_DIGITS:
                raise ValueError(_TOO_LONG)
            return int(self.construct_yaml_int(node))

    Loader.add_constructor("tag:yaml.org,2002:int", Loader.short_integer)
    return Loader


def typed(kind: type[T], value: object) -> T:
    """Check a JSON value against a type, such as a dataclass with its nested ones, and return an instance of it.

    No value is converted, except whole numbers to float. Raises ValueError with the first value that has another type.
    """
    try:
        return TypeAdapter(kind).validate_json(json.dumps(value), strict=True)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the value"
        raise ValueError(f"{place}: {first['msg']}") from None


def relative_path(name: str) -> str:
    """Return `name` if it is a relative path that stays in its folder, such as "model/config.json".

    Raises ValueError for an absolute path, for one with "..", and for a name that no file can have.
    """
    parts = PurePosixPath(name).parts
    inside = bool(parts) and name == "/".join(parts) and ".." not in parts and not name.startswith("/")
    possible = "\0" not in name and "\\" not in name and name.isprintable() and len(name.encode()) <= _LONGEST_NAME
    if not inside or not possible:
        raise ValueError(f"{name[:80]!r} is not the path of a file in this folder")
    return name


def file_name(name: str) -> str:
    """Return `name` if it is the name of a file, without any folder. Raises ValueError."""
    if "/" in name:
        raise ValueError(f"{name[:80]!r} is not the name of a file in this folder")
    return relative_path(name)


def one_line(text: str) -> str:
    """Return `text` if it is not empty and has no control characters. Raises ValueError."""
    if not text or not text.isprintable():
        raise ValueError(f"{text[:80]!r} is not one line of text")
    return text


Line = Annotated[str, AfterValidator(one_line)]
FileName = Annotated[str, AfterValidator(file_name)]
RelativePath = Annotated[str, AfterValidator(relative_path)]


class FileEntry(TypedDict):
    """A manifest's entry of a file: its size in bytes, and the sha256 of its content in hexadecimal digits."""

    bytes: int
    sha256: str


FileEntries = Mapping[RelativePath, FileEntry]


def shards_of_index(data: bytes | str) -> list[str]:
    """Return the names of the files that the index of split weights (`weight_map`) lists.

    Raises ValueError for one that lists none: a model has weights.
    """
    names = sorted(set(typed(dict[str, FileName], json_object(data).get("weight_map")).values()))
    if not names:
        raise ValueError("its weight_map is empty: it names no file of weights")
    return names
