"""Records what an installer changes on the modules of a model, and takes exactly that off again.

The changes are found by comparison of every module before and after: its class, its attributes, and the entries of its
tables, such as its hooks. So an installer needs no code to undo its work, and none can be forgotten. What another
library puts on a module later, for example DeepSpeed, is left alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn

_Tables = dict[str, dict[Any, Any]]


@dataclass
class _Change:
    """The changes of one module."""

    module: nn.Module
    own_class: type[nn.Module]
    new_class: type[nn.Module]
    """The class that the installer gave the module; the own one where it gave none."""
    attributes: list[str]
    """Names of attributes that the installer added."""
    entries: dict[str, list[Any]]
    """Keys that the installer added to the module's tables, by the table's name."""

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the new class, which may be made at run time: pickle finds no such class by its name."""
        return {name: value for name, value in vars(self).items() if name != "new_class"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, new_class=type(state["module"]))

    def undo(self) -> None:
        if type(self.module) is self.new_class:  # else another library has put its own class on it since
            self.module.__class__ = self.own_class
        for name in self.attributes:
            vars(self.module).pop(name, None)
        for name, keys in self.entries.items():
            for key in keys:
                vars(self.module)[name].pop(key, None)


@dataclass
class Changes:
    """The changes of one installation, which several users may share: the last one to leave undoes them."""

    changed: list[_Change] = field(default_factory=list)
    users: int = 0

    def leave(self) -> bool:
        """Take one user away; returns True, with everything undone, where it was the last."""
        self.users = max(0, self.users - 1)
        if self.users:
            return False
        for change in self.changed:
            change.undo()
        return True

    def __getstate__(self) -> dict[str, Any]:
        """Let a copy or pickle of a model start without users: those of the original do not know it."""
        return vars(self) | {"users": 0}


@contextmanager
def recorded(model: nn.Module) -> Iterator[Changes]:
    """Yield a `Changes`, which holds everything that the body has changed on `model` once the body has ended."""
    changes, before = Changes(), {module: _state(module) for module in model.modules()}
    yield changes
    for module, state in before.items():
        change = _change(module, *state)
        if change is not None:
            changes.changed.append(change)


def _state(module: nn.Module) -> tuple[type[nn.Module], set[str], _Tables]:
    return type(module), set(vars(module)), {name: dict(table) for name, table in _tables(module)}


def _tables(module: nn.Module) -> Iterator[tuple[str, dict[Any, Any]]]:
    return ((name, value) for name, value in vars(module).items() if isinstance(value, dict))


def _change(module: nn.Module, own_class: type[nn.Module], names: set[str], tables: _Tables) -> _Change | None:
    attributes = [name for name in vars(module) if name not in names]
    entries = {name: [key for key in vars(module)[name] if key not in table] for name, table in tables.items()}
    entries = {name: keys for name, keys in entries.items() if keys}
    if not attributes and not entries and type(module) is own_class:
        return None
    return _Change(module, own_class, type(module), attributes, entries)
