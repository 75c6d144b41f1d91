"""A run file and the command line's overrides -> RunConfig, and where each value came from."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftsys.config.build import SECTIONS, accepts_only_text, build_run, known_keys, plain_tree
from ftsys.config.schema import RunConfig
from ftsys.errors import ConfigError

DEFAULT, FILE, COMMAND_LINE = "default", "file", "command line"
_EITHER_OR = (("train.epochs", "train.max_steps"), ("batch.global_size", "batch.global_tokens"))

Tree = dict[str, Any]


def load_run(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run file, lay the overrides over it and check all of it.

    `overrides` are the command line's words: `--section.key value` or `--section.key=value`, each value written as in
    TOML, or plain text where it is none. Precedence: defaults < file < command line. Raises ConfigError with every
    mistake at once; relative paths in values are meant from the current folder, but for a bundle's own.
    """
    from_file, from_line = _placed(path), parse_overrides(overrides)
    return build_run(_merged(from_file, from_line))


def resolved_tree(path: str | Path, overrides: Sequence[str] = ()) -> list[tuple[str, Any, str]]:
    """Every key in the tree's order as (dotted key, value, "default" | "file" | "command line"). Raises ConfigError."""
    from_file, from_line = _placed(path), parse_overrides(overrides)
    run = build_run(_merged(from_file, from_line))
    flat = _flatten(plain_tree(run))
    return [(key, value, _origin(key, _flatten(from_file), _flatten(from_line))) for key, value in flat.items()]


def _placed(path: str | Path) -> Tree:
    """A run file's values; where it names a bundle, with the paths in it made whole, so that a bundle can be moved."""
    tree = read_run_file(path)
    bundle, engine = tree.get("bundle"), tree.get("engine")
    if isinstance(bundle, str) and bundle:
        folder = (Path(path).parent / bundle).absolute()
        tree["bundle"] = str(folder)
        if isinstance(engine, dict) and isinstance(engine.get("deepspeed"), str) and engine["deepspeed"]:
            tree["engine"] = engine | {"deepspeed": str(folder / engine["deepspeed"])}
    return tree


def _origin(key: str, from_file: Tree, from_line: Tree) -> str:
    return COMMAND_LINE if key in from_line else FILE if key in from_file else DEFAULT


def _flatten(tree: Mapping[str, Any]) -> Tree:
    flat: Tree = {}
    for name, value in tree.items():
        inside = isinstance(value, Mapping) and (name in SECTIONS or name == "trainer")
        flat.update({f"{name}.{key}": inner for key, inner in value.items()} if inside else {name: value})
    return flat


def read_run_file(path: str | Path) -> Tree:
    """The plain values of a TOML file. Raises ConfigError, with the line where the text is no TOML."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"run file {str(path)!r} does not exist: give the path of a TOML file.") from None
    except OSError as error:
        raise ConfigError(f"run file {str(path)!r} cannot be read ({error.strerror}): give a readable file.") from error
    except UnicodeDecodeError as error:
        text = f"run file {str(path)!r} is not UTF-8 text (byte {error.start}): save it as UTF-8."
        raise ConfigError(text) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"run file {str(path)!r} is no TOML: {error}. Correct that line.") from error


def parse_overrides(words: Sequence[str]) -> Tree:
    """`--section.key value` words as a tree. Raises ConfigError naming every word that is out of place."""
    tree: Tree = {}
    mistakes: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        key, equals, text = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not key:
            mistakes.append(f"{word!r} is no override: write --section.key value.")
            continue
        if not equals:
            if not rest or rest[0].startswith("--"):
                mistakes.append(f"{word!r} has no value: write {word} VALUE (or {word}=VALUE if it begins with --).")
                continue
            text = rest.pop(0)
        _set(tree, key.split("."), _parse_value(key, text))
    ConfigError.raise_if(mistakes)
    return tree


def _parse_value(key: str, text: str) -> Any:
    field = known_keys().get(key)
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = parsed["value"]
    if isinstance(value, dict):
        return _Whole(value)
    if len(parsed) > 1 or (field is not None and accepts_only_text(field) and not isinstance(value, str)):
        return text
    return value


class _Whole(dict[str, Any]):
    """A table that the command line gives as a whole: it replaces the file's, key by key it would mix with it."""


def _set(tree: Tree, path: list[str], value: Any) -> None:
    for name in path[:-1]:
        if not isinstance(tree.get(name), dict):
            tree[name] = {}
        tree = tree[name]
    tree[path[-1]] = value


def _merged(from_file: Tree, from_line: Tree) -> Tree:
    """The file's tree with the command line's values over it."""
    below = {name: dict(value) if isinstance(value, dict) else value for name, value in from_file.items()}
    for key, rival in (*_EITHER_OR, *(pair[::-1] for pair in _EITHER_OR)):
        # `--train.max_steps 5` over a file that says `epochs = 3`: the command line has chosen between the two.
        section = key.partition(".")[0]
        if key in _flatten(from_line) and isinstance(below.get(section), dict):
            below[section].pop(rival.partition(".")[2], None)
    return _over(below, from_line)


def _over(below: Tree, above: Tree) -> Tree:
    merged = dict(below)
    for name, value in above.items():
        if isinstance(value, dict) and not isinstance(value, _Whole) and isinstance(merged.get(name), dict):
            merged[name] = _over(merged[name], value)
        else:
            merged[name] = dict(value) if isinstance(value, _Whole) else value
    return merged
