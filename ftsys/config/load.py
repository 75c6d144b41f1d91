"""Loads a run file with overrides from the command line, and records the origin of each value."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Any

from ftsys.config.build import SECTIONS, accepts_only_text, build_run, known_keys, plain_tree
from ftsys.config.fields import is_secret
from ftsys.config.run_config import RunConfig
from ftsys.errors import ConfigError
from ftsys.files.paths import expanded
from ftsys.files.untrusted import MOST_LEVELS, file_text, parse_toml
from ftsys.recipes import RIVALS, recipe_of

DEFAULT, RECIPE, FILE, COMMAND_LINE = "default", "recipe", "file", "command line"

Tree = dict[str, Any]


def load_run(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run file, apply the overrides and check the result.

    `overrides` are command-line arguments: `--section.key value` or `--section.key=value`. A value is written as in
    TOML; anything that is not a TOML value is taken as plain text. Precedence: defaults < recipe < file < command
    line. Relative paths in values start at the current folder, those of a bundle at the run file's folder. Raises
    ConfigError with every mistake at once.
    """
    from_file, from_line = read_with_paths(path), parse_overrides(overrides)
    return build_run(merged(from_file, from_line))


def resolved_tree(path: str | Path, overrides: Sequence[str] = ()) -> list[tuple[str, Any, str]]:
    """Return (dotted key, value, origin) for each key, in order. Raises ConfigError.

    The origin is "default", "recipe", "file" or "command line".
    """
    from_file, from_line = read_with_paths(path), parse_overrides(overrides)
    tree = merged(from_file, from_line)
    flat = _flatten(plain_tree(build_run(tree)))
    layers = {COMMAND_LINE: _flatten(from_line), FILE: _flatten(from_file), RECIPE: _flatten(recipe_of(tree))}
    return [(key, value, _origin(key, layers)) for key, value in flat.items()]


def read_with_paths(path: str | Path) -> Tree:
    """Read a run file; the paths of a bundle become absolute, relative to the file, so that a bundle can be moved."""
    tree = read_run_file(path)
    bundle, engine = tree.get("bundle"), tree.get("engine")
    if isinstance(bundle, str) and bundle:
        folder = (Path(path).parent / expanded(bundle)).absolute()
        tree["bundle"] = str(folder)
        if isinstance(engine, dict) and isinstance(engine.get("deepspeed"), str) and engine["deepspeed"]:
            tree["engine"] = engine | {"deepspeed": str(folder / expanded(engine["deepspeed"]))}
    return tree


def _origin(key: str, layers: Mapping[str, Tree]) -> str:
    """Return the name of the first layer that has the key."""
    return next((name for name, tree in layers.items() if key in tree), DEFAULT)


def _flatten(tree: Mapping[str, Any]) -> Tree:
    flat: Tree = {}
    for name, value in tree.items():
        inside = isinstance(value, Mapping) and (name in SECTIONS or name == "trainer")
        flat.update({f"{name}.{key}": inner for key, inner in value.items()} if inside else {name: value})
    return flat


def read_run_file(path: str | Path) -> Tree:
    """Read the plain values of a TOML file. Raises ConfigError, with the line of a TOML error."""
    try:
        return parse_toml(file_text(path))
    except FileNotFoundError:
        raise ConfigError(f"run file {str(path)!r} does not exist: give the path of a TOML file.") from None
    except OSError as error:
        raise ConfigError(f"run file {str(path)!r} cannot be read ({error.strerror}): give a readable file.") from error
    except UnicodeDecodeError as error:
        text = f"run file {str(path)!r} is not UTF-8 text (byte {error.start}): save it as UTF-8."
        raise ConfigError(text) from error
    except TOMLDecodeError as error:
        raise ConfigError(f"run file {str(path)!r} is not valid TOML: {error}. Correct that line.") from error
    except ValueError as error:
        raise ConfigError(f"run file {str(path)!r} cannot be used: {error}. Correct the file.") from error


def parse_overrides(overrides: Sequence[str]) -> Tree:
    """Parse `--section.key value` arguments into a tree. Raises ConfigError that names every wrong argument."""
    tree: Tree = {}
    mistakes: list[str] = []
    rest = list(overrides)
    while rest:
        argument = rest.pop(0)
        key, equals, text = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not key:
            mistakes.append(f"{_without_secret(argument, rest)!r} is not an override: write --section.key value.")
            continue
        if key.count(".") >= MOST_LEVELS:
            mistakes.append(
                f"{key[:80]!r}... is no key: it has more than {MOST_LEVELS} parts. Write --section.key value."
            )
            rest = rest if equals else rest[1:]
            continue
        if not equals:
            if not rest or rest[0].startswith("--"):
                if "." not in key and key not in known_keys():
                    mistakes.append(f"{argument!r} is not an option: see --help. An override is --section.key VALUE.")
                    continue
                hint = f"write {argument} VALUE (or {argument}=VALUE if it begins with --)"
                mistakes.append(f"{argument!r} has no value: {hint}.")
                continue
            text = rest.pop(0)
        _set(tree, key.split("."), _parse_value(key, text))
    ConfigError.raise_if(mistakes)
    return tree


def _without_secret(argument: str, rest: list[str]) -> str:
    """Return a wrong argument for a message without the secret in it; removes one that follows it from `rest`."""
    key, equals, _ = argument.partition("=")
    if not key.startswith("-") or not is_secret(key):
        return argument
    if not equals and rest and not rest[0].startswith("-"):
        del rest[0]
    return f"{key}=***" if equals else key


def _parse_value(key: str, text: str) -> Any:
    field = known_keys().get(key)
    try:
        parsed = parse_toml(f"value = {text}")
    except ValueError:
        return text
    value = parsed["value"]
    if isinstance(value, dict):
        return _Whole(value)
    if len(parsed) > 1 or (field is not None and accepts_only_text(field) and not isinstance(value, str)):
        return text
    return value


class _Whole(dict[str, Any]):
    """A table given on the command line: it replaces the file's table, it is not merged into it key by key."""


def _set(tree: Tree, path: list[str], value: Any) -> None:
    for name in path[:-1]:
        if not isinstance(tree.get(name), dict):
            tree[name] = {}
        tree = tree[name]
    tree[path[-1]] = value


def merged(from_file: Tree, from_line: Tree) -> Tree:
    """Merge the command line's values, or those of a more special file, into a file's tree; they take precedence."""
    below = {name: dict(value) if isinstance(value, dict) else value for name, value in from_file.items()}
    for key, rival in RIVALS.items():
        # With `--train.max_steps 5` and `epochs = 3` in the file, the command line decides between the two.
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
