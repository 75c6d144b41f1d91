"""Refuses a model with weights that loading made up, where nothing will train them; without torch."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ftsys.errors import ConfigError

_NAMED = 4
"""So many weights are named in a message."""


def made_up(info: Mapping[str, Any], replaced: Collection[str] = ()) -> dict[str, str]:
    """Return the names of the weights that loading initialised freshly, each with its shapes if the files have another.

    `info` is transformers' loading info. The text of a weight that the files lack is "". `replaced` are names that an
    adapter brings.
    """
    found = dict.fromkeys(info["missing_keys"], "")
    for entry in info["mismatched_keys"]:
        name, *shapes = entry if isinstance(entry, tuple) else (entry,)
        found[name] = " instead of ".join(str(tuple(shape)) for shape in shapes) or "another shape"
    return {name: found[name] for name in sorted(found) if name not in replaced}


def refuse_untrained(model: str, base: str, fresh: Mapping[str, str]) -> None:
    """Raise ConfigError if `fresh`, the result of `made_up`, holds a weight: its numbers would decide the answers.

    `model` names the model in the message; `base` is the name of the encoder within it.
    """
    ConfigError.raise_if(_untrained(model, base, fresh))


def _untrained(model: str, base: str, fresh: Mapping[str, str]) -> Iterator[str]:
    lacking = [name for name, shape in fresh.items() if not shape]
    of_other_shape = [f"{name} ({shape})" for name, shape in fresh.items() if shape]
    wrong = [f"lack {_listed(lacking)}"] if lacking else []
    wrong += [f"have another shape for {_listed(of_other_shape)}"] if of_other_shape else []
    if wrong and not any(name.startswith(f"{base}.") for name in fresh):
        yield (
            f"model {model!r} has no trained classification head: its weights {' and '.join(wrong)}. Train it first, "
            "or name a model that was trained to classify."
        )
    elif wrong:
        yield (
            f"model {model!r} is not the one that was trained: its weights {' and '.join(wrong)}. Copy the model "
            "again, or train it again."
        )


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:_NAMED])}{' ...' if len(names) > _NAMED else ''}"
