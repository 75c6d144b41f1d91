"""Reads a search space: the values that each key of a run file may take in a sweep.

batch.global_size = "16,32,64"              one of these values; in a run file also [16, 32, 64]
train.epochs = "2..5"                       any whole number from 2 to 5, both included
trainer.weight_decay = "0.0..0.1"           any number from 0.0 to 0.1
train.learning_rate = "log:1e-5..1e-4"      the same, evenly spread over the logarithm
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftsys.config import dump_tree, known_keys
from ftsys.config.build import OF_OTHER_COMMANDS, unknown_key_message
from ftsys.config.trainer_known import HONOURED_TRAINER_FIELDS
from ftsys.did_you_mean import did_you_mean
from ftsys.errors import ConfigError
from ftsys.files.untrusted import parse_toml

if TYPE_CHECKING:
    from optuna import Trial

Value = str | int | float | bool
GRAMMAR = "a list such as 16,32,64, a range such as 2..5 or 0.0..0.1, or a log range such as log:1e-5..1e-4"
_FIXED = ("output_dir", "bundle", "task", "launch", *OF_OTHER_COMMANDS)
"""Keys and sections that are the same in all trials."""


@dataclass(frozen=True)
class Choice:
    """Some values, of which a trial takes one."""

    values: tuple[Value, ...]

    def suggest(self, trial: "Trial", key: str) -> Value:
        """Return the trial's value."""
        value = trial.suggest_categorical(key, self.values)
        assert value is not None, "TOML has no null"
        return value

    def samples(self) -> tuple[Value, ...]:
        """Return all values."""
        return self.values


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones if both are written without a point."""

    low: int | float
    high: int | float
    log: bool

    def suggest(self, trial: "Trial", key: str) -> Value:
        """Return the trial's value."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(key, self.low, self.high, log=self.log)
        return trial.suggest_float(key, self.low, self.high, log=self.log)

    def samples(self) -> tuple[Value, ...]:
        """Return both ends: a key that accepts them accepts what is between."""
        return self.low, self.high


Space = Mapping[str, Choice | Range]


def read_space(written: Mapping[str, Any]) -> Space:
    """Read a table of keys and what they may be; nested tables are sections. Raises ConfigError for all mistakes."""
    space, mistakes = {}, []
    for key, spec in _flat(written):
        try:
            _check_key(key, spec)
            space[key] = _read(key, spec)
        except ConfigError as error:
            mistakes.append(str(error))
    if not space and not mistakes:
        mistakes.append(
            f"the sweep has no space: give --space KEY=VALUES, or [sweep.space] in the run file, with {GRAMMAR}."
        )
    ConfigError.raise_if(mistakes)
    return space


def _flat(written: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in written.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _check_key(key: str, spec: Any) -> None:
    """Raise ConfigError for a key that a run file does not have, or that must be the same in all trials."""
    section, _, name = key.partition(".")
    if section in _FIXED:
        raise ConfigError(f"the space has {key!r}, which is the same in all trials: set it in the run file.")
    if section == "trainer":
        if name not in HONOURED_TRAINER_FIELDS:
            near = did_you_mean(name, HONOURED_TRAINER_FIELDS) if name else "write trainer.NAME"
            raise ConfigError(f"the space has {key!r}, which [trainer] does not pass on: {near}.")
    elif key not in known_keys():
        raise ConfigError(f"the space: {unknown_key_message(key, spec)}")


def _read(key: str, spec: Any) -> Choice | Range:
    if isinstance(spec, str) and ".." in spec:
        return _range(key, spec)
    values = [_value(part.strip()) for part in spec.split(",")] if isinstance(spec, str) else spec
    if not isinstance(values, list) or not all(isinstance(value, Value) for value in values):
        raise ConfigError(f"the space of {key}, {spec!r}, cannot be read: write {GRAMMAR}.")
    if not values or "" in values:
        raise ConfigError(f"the space of {key}, {spec!r}, has an empty value or none: write {GRAMMAR}.")
    if len({(type(value), value) for value in values}) != len(values):
        raise ConfigError(f"the space of {key}, {spec!r}, repeats a value: write each once.")
    return Choice(tuple(values))


def _value(text: str) -> Any:
    try:
        return parse_toml(f"value = {text}")["value"]
    except ValueError:
        return text


def _range(key: str, spec: str) -> Range:
    log = spec.startswith("log:")
    ends = spec.removeprefix("log:").split("..", 1)
    try:
        low, high = (_number(end) for end in ends)
    except ValueError:
        raise ConfigError(f"the space of {key}, {spec!r}, is not a range of numbers: write {GRAMMAR}.") from None
    if isinstance(low, float) or isinstance(high, float):
        low, high = float(low), float(high)
    if low >= high:
        raise ConfigError(
            f"the space of {key}, {spec!r}, is empty: write the lower number first, and a higher one after it."
        )
    if log and low <= 0:
        raise ConfigError(f"the space of {key}, {spec!r}, is a log range from {low}: start it above 0.")
    return Range(low, high, log)


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not finite")
    return number


def overrides_of(values: Mapping[str, Value]) -> list[str]:
    """Return the overrides of the command line that set these keys."""
    return [word for key, value in values.items() for word in (f"--{key}", _as_toml(value))]


def _as_toml(value: Value) -> str:
    return dump_tree({"value": value}).partition(" = ")[2].strip()


def texts_of(space: Space) -> dict[str, str]:
    """Return one text for each key, the same for the same values: a study records it."""
    return {key: _text(part) for key, part in sorted(space.items())}


def _text(part: Choice | Range) -> str:
    if isinstance(part, Choice):
        return ",".join(map(_as_toml, part.values))
    return f"{'log:' if part.log else ''}{part.low!r}..{part.high!r}"


def all_points(space: Space) -> Sequence[dict[str, Value]]:
    """Return all combinations of a space of lists and ranges of whole numbers. Raises ConfigError for other ranges."""
    from itertools import product

    columns = [[(key, value) for value in _all_of(key, part)] for key, part in space.items()]
    return [dict(point) for point in product(*columns)]


def _all_of(key: str, part: Choice | Range) -> Sequence[Value]:
    if isinstance(part, Choice):
        return part.values
    if part.log or not isinstance(part.low, int):
        raise ConfigError(
            f"the space of {key}, {_text(part)!r}, cannot be tried in full, as a grid does: write a list or a range of "
            'whole numbers, or use the sampler "tpe" or "random".'
        )
    return range(part.low, int(part.high) + 1)
