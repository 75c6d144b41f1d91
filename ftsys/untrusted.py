"""Reads what a file or a neighbour may have written wrongly: JSON, TOML, the types of their values, names of files.

Every mistake is a ValueError with one short line. The caller adds the file's name and the advice.
"""

import json
import tomllib
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, TypeAdapter, ValidationError
from typing_extensions import TypedDict

T = TypeVar("T")

_LONGEST_NAME = 255
"""In bytes: the limit of Linux's file systems for a name, far above any path in a folder of ours."""
_TOO_DEEP = "it is nested too deeply"


def parse_json(data: bytes | str) -> Any:
    """Return the value of a JSON text. Raises ValueError, also for deep nesting and integers above 4,300 digits."""
    try:
        return json.loads(data)
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


ROW_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys)
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


def parse_toml(text: str) -> dict[str, Any]:
    """Return the tables of a TOML text. Raises ValueError, also for deep nesting and integers above 4,300 digits."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


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
    """Return the names of the files that the index of split weights (`weight_map`) lists. Raises ValueError."""
    return sorted(set(typed(dict[str, FileName], json_object(data).get("weight_map")).values()))
