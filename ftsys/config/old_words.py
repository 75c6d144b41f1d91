"""Translates a word that earlier versions used in run files, "embedded", into today's words.

The sample is "synthetic" today and the model is "bundled". Every value is translated when a run file is checked, so
nothing else knows the old word. Two records of earlier versions hold it: the identity of a run and `bundle.json`.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

from ftsys.console.printer import say
from ftsys.ranks import is_main_rank

OLD_WORD = "embedded"
TODAY = {"data.source": "synthetic", "model.name": "bundled"}
"""Today's word for the old one, by the key of the run file."""

_TOLD = "FTSYS_OLD_WORD_TOLD"
"""Set after the notice. The launchers pass FTSYS_ variables to the ranks, so a start shows the notice once."""


def todays_word(key: str, value: Any) -> Any:
    """Return the value of the run-file key `key` in today's words; print one notice if it was the old word."""
    if not isinstance(value, str) or value != OLD_WORD:  # a data set compares column by column
        return value
    if is_main_rank() and _TOLD not in os.environ:
        os.environ[_TOLD] = "1"
        words = " and ".join(f'{key} = "{word}"' for key, word in TODAY.items())
        say(f'note: "{OLD_WORD}" is the former name: write {words} instead.')
    return TODAY[key]


def in_todays_words(values: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a record of values by the run file's dotted keys, such as bundle.json's; prints nothing."""
    return {key: _to_today(key, value) if key in TODAY else value for key, value in values.items()}


def identity_in_todays_words(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Translate identity parts that an earlier version may have recorded."""
    return _with_words(parts, _to_today)


def identity_in_old_words(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Translate identity parts into the words that are hashed: checkpoints of earlier versions hold such hashes."""
    return _with_words(parts, lambda key, value: OLD_WORD if value == TODAY[key] else value)


def _to_today(key: str, value: Any) -> Any:
    return TODAY[key] if value == OLD_WORD else value


def _with_words(parts: Mapping[str, Any], translate: Callable[[str, Any], Any]) -> dict[str, Any]:
    changed = dict(parts)
    if "model" in parts:
        changed["model"] = translate("model.name", parts["model"])
    if isinstance(data := parts.get("data"), Mapping) and "source" in data:
        changed["data"] = {**data, "source": translate("data.source", data["source"])}
    return changed
