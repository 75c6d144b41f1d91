"""Turns values into those that JSON has."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any


def json_safe(value: object, finite: bool = True) -> Any:
    """Return `value` with everything that JSON lacks replaced.

    NaN and infinities become None (null), unless `finite` is False; NumPy scalars and arrays numbers and lists, paths
    strings, tuples and sets lists (sets sorted). Raises TypeError for any other value that JSON cannot hold.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) or not finite else None
    if isinstance(value, Mapping):
        return {str(key): json_safe(item, finite) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return [json_safe(item, finite) for item in sorted(value)]
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [json_safe(item, finite) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # NumPy scalars and arrays, torch tensors: without importing either
        return json_safe(value.tolist(), finite)
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be written as JSON")
