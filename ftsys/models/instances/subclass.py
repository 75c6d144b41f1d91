"""Replaces the class of a module by a subclass of it, where the class is known only when the model is.

The subclass has the name of the model's own class, because transformers selects modules by class. Pickle finds a class
by its name, so an instance is pickled by the model's own class.
"""

from types import new_class
from typing import Any

from torch import nn

_SUBCLASSES: dict[tuple[type, type], type] = {}


class Replacement(nn.Module):
    """Base of the classes whose methods replace those of a model's own class; `super()` reaches the latter."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy by the two classes that `become` has put together."""
        return _empty, type(self).__bases__, self.__dict__


def become(module: nn.Module, replacement: type[Replacement]) -> None:
    """Make `module` an instance of a subclass of `replacement` and of its own class."""
    module.__class__ = _subclass(replacement, type(module))


def class_before(module: nn.Module) -> type[nn.Module]:
    """Return the class that `module` had before it became an instance of any replacement."""
    own = type(module)
    while issubclass(own, Replacement):
        own = own.__bases__[1]
    return own


def _subclass(replacement: type[Replacement], stock: type) -> type:
    if (replacement, stock) not in _SUBCLASSES:
        _SUBCLASSES[replacement, stock] = new_class(stock.__name__, (replacement, stock))
    return _SUBCLASSES[replacement, stock]


def _empty(replacement: type[Replacement], stock: type) -> nn.Module:
    """Return an empty instance, which pickle and deepcopy then fill."""
    empty: nn.Module = object.__new__(_subclass(replacement, stock))
    return empty
