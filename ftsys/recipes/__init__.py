"""Reads recipes: values of [batch], [train] and [trainer] for a family of models, below those of a run file.

    recipe = "roberta"          in a run file, or --recipe roberta: configs/recipes/roberta.toml
    recipe = "mine.toml"        a file of one's own

A recipe is TOML with these three sections. Sections below [by_task.NAME] override them for the task of that name.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftsys.did_you_mean import did_you_mean
from ftsys.errors import ConfigError
from ftsys.files.paths import expanded
from ftsys.files.untrusted import file_text, parse_toml
from ftsys.shipped import shipped, shipped_names

FOLDER, BY_TASK = "configs/recipes", "by_task"
SECTIONS = ("batch", "train", "trainer")
EITHER_OR = (("train.epochs", "train.max_steps"), ("batch.global_size", "batch.global_tokens"))
"""Keys of which a run has one."""
RIVALS = dict(EITHER_OR) | {other: key for key, other in EITHER_OR}
"""The other one of each: a layer that has the one takes no value for the other from a layer below it."""

Tree = dict[str, Any]


def recipe_of(tree: Mapping[str, Any]) -> Tree:
    """Return the values of the recipe that a tree names, for its task; {} without one. Raises ConfigError."""
    name = tree.get("recipe")
    if not isinstance(name, str) or not name:
        return {}
    path = _path_of(name)
    try:
        recipe = parse_toml(file_text(path))
    except (OSError, ValueError) as error:
        raise ConfigError(f"recipe={name!r} cannot be read ({error}): correct {str(path)!r}.") from error
    by_task = recipe.pop(BY_TASK, {})
    task = tree.get("task")
    known = task.get("name") if isinstance(task, Mapping) else None
    own = by_task.get(known, {}) if isinstance(known, str) and isinstance(by_task, Mapping) else {}
    for part in (recipe, own):
        _check_sections(name, part)
    return _over(recipe, own)


def _path_of(name: str) -> Path:
    if name.endswith(".toml"):
        return expanded(name)
    known = shipped_names(FOLDER)
    if name not in known:
        raise ConfigError(f"recipe={name!r} is not a recipe: {did_you_mean(name, known)}, or the path of a .toml file.")
    return shipped(f"{FOLDER}/{name}.toml")


def _check_sections(name: str, part: Any) -> None:
    wrong = [key for key in part if key not in SECTIONS] if isinstance(part, Mapping) else [BY_TASK]
    if wrong or not all(isinstance(section, Mapping) for section in part.values()):
        raise ConfigError(
            f"recipe={name!r} has {', '.join(wrong) or 'a key that is not a section'}: a recipe has the sections "
            f"{', '.join(f'[{section}]' for section in SECTIONS)}, and the same below [{BY_TASK}.NAME]."
        )


def with_recipe(tree: Mapping[str, Any]) -> Tree:
    """Put a tree over the recipe that it names. Raises ConfigError for a recipe that cannot be used."""
    return _over(recipe_of(tree), tree)


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> Tree:
    """Return `above`, with the values of sections of `below` that it has no value for."""
    merged = dict(above)
    for name, section in below.items():
        own = above.get(name, {})
        if isinstance(own, Mapping):
            rivals = {key: RIVALS.get(f"{name}.{key}", "").rpartition(".")[2] for key in section}
            merged[name] = {key: value for key, value in section.items() if rivals[key] not in own} | dict(own)
    return merged
