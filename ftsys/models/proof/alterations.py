"""Finds what was put on a model from outside, and would see or change batches.

Hooks, replaced methods, layers that keep statistics of a batch, and layers that are used in two places.

A few rows cannot show these: a hook counts rows, statistics take effect in training only. So their presence decides.
The home of a function is the package of the module that it was written in. A decorator may copy a name and a docstring,
but not this.
"""

import sys
from collections.abc import Iterator
from itertools import chain
from types import FunctionType
from typing import Any

from torch import nn
from torch.nn.modules import module as all_modules
from torch.nn.modules.batchnorm import _NormBase

_LIBRARIES = {"accelerate", "deepspeed", "ftsys", "peft", "torch", "transformers"}
"""Packages whose modules, hooks and methods are known; a class of any other package is left to the proof."""
_HELPERS = {"builtins", "huggingface_hub", "typing_extensions", *sys.stdlib_module_names}
"""Further packages whose decorators those libraries use."""
_TABLES = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_FOR_ALL = tuple(f"_global{table}" for table in _TABLES)


def why_altered(model: nn.Module) -> str | None:
    """Return the first reason why `model` needs the stock batches whatever its results are; None if there is none."""
    rules = (_foreign_hooks, _foreign_methods, _batch_statistics, _shared_layers)
    return next(chain.from_iterable(rule(model) for rule in rules), None)


def layer_name(name: str, module: nn.Module) -> str:
    """Return the name of a module in messages, with its class."""
    return f"{name or 'the model'} ({type(module).__name__})"


def _foreign_hooks(model: nn.Module) -> Iterator[str]:
    for name, module in model.named_modules():
        for table in _TABLES:
            if any(not _is_known(hook) for hook in vars(module)[table].values()):
                yield f"a hook of your own on {layer_name(name, module)} would see packed rows"
    for table in _FOR_ALL:
        if any(not _is_known(hook) for hook in getattr(all_modules, table).values()):
            yield "a hook of your own on all modules would see packed rows"


def _foreign_methods(model: nn.Module) -> Iterator[str]:
    """Yield methods of a library's class that were replaced, on the class or on an instance."""
    for kind in {base: None for module in model.modules() for base in type(module).__mro__}:
        if _root(kind.__module__) in _LIBRARIES:
            yield from (f"{kind.__name__}.{name} was replaced" for name in _replaced(vars(kind)))
    for name, module in model.named_modules():
        if _root(type(module).__module__) in _LIBRARIES:
            own = (key for key in _replaced(vars(module)) if hasattr(type(module), key))
            yield from (f"{key} of {layer_name(name, module)} was replaced" for key in own)


def _replaced(attributes: Any) -> Iterator[str]:
    for name, value in attributes.items():
        function = getattr(value, "fget", None) or getattr(value, "__func__", value)
        if (isinstance(function, FunctionType) or name == "forward") and not _is_known(function):
            yield name


def _is_known(function: Any) -> bool:
    """Return True for a function, method, `partial` or callable object that a known package defines."""
    while hasattr(function, "func") or hasattr(function, "__func__"):
        function = getattr(function, "func", None) or function.__func__
    if isinstance(function, FunctionType):
        home = function.__globals__.get("__name__", "")
    else:
        home = getattr(function, "__module__", None) or type(function).__module__
    return _root(home) in _LIBRARIES | _HELPERS


def _root(module: str) -> str:
    return module.partition(".")[0]


def _batch_statistics(model: nn.Module) -> Iterator[str]:
    for name, module in model.named_modules():
        if isinstance(module, _NormBase) or getattr(module, "running_mean", None) is not None:
            yield f"{layer_name(name, module)} keeps statistics of whole batches"


def _shared_layers(model: nn.Module) -> Iterator[str]:
    """Yield modules with weights or dropout that are in two places: dropout masks belong to a module and its place."""
    places: dict[nn.Module, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if module in places and (isinstance(module, nn.Dropout) or next(module.parameters(), None) is not None):
            yield f"{layer_name(name, module)} is {places[module]} too"
        places.setdefault(module, name)
