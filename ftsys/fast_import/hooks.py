"""Shortens the imports of a rank: without optional packages that no rank uses, and without garbage collection.

Importing transformers' Trainer and one text encoder also imports packages for other models, and reads the about 2,000
files of all models to learn which names they define. `begin_fast_import` changes the imports that follow:

- Garbage collection is off until `end_fast_import`, because imports create millions of objects that stay.
- transformers gets the answer that datasets and scipy are not installed, which it imports for a type check and for
  object detection.
- The names that transformers' models define come from a cache file.

Each saves 0.15 s or more of a start on its own (`benchmarks/LOG.md` has the figures). Only public functions of
transformers are replaced, and nothing of torch. A function that another version lacks is skipped.

This is for processes that are ranks only: a user's own script must get an unchanged transformers. The environment
variable FTSYS_FAST_IMPORT=0 switches all of it off.
"""

import gc
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

from ftsys.fast_import.model_names import names_from_cache

SWITCH = "FTSYS_FAST_IMPORT"
"""Environment variable; the value 0 switches fast imports off."""

ABSENT = ("is_scipy_available", "is_datasets_available")
"""Functions of `transformers.utils.import_utils` that return False in a rank."""


def begin_fast_import() -> None:
    """Shorten the imports that follow, unless FTSYS_FAST_IMPORT is 0. Modules already imported do not change."""
    if os.environ.get(SWITCH) != "0":
        gc.disable()
        sys.meta_path.insert(0, _HookFinder())


def end_fast_import() -> None:
    """Switch garbage collection on again. It ignores the objects created so far, which stay until the process ends."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def _replace(module: Any, name: str, wrap: Callable[[Any], Any]) -> None:
    """Set `module.name` to `wrap` of it, if the module has it."""
    if hasattr(module, name):
        setattr(module, name, wrap(getattr(module, name)))


def _after_import_utils(module: Any) -> None:
    """Hide optional packages from transformers, and cache the names of its models."""
    for name in ABSENT:
        _replace(module, name, lambda _: lambda: False)
    _replace(module, "define_import_structure", names_from_cache)


HOOKS: dict[str, Callable[[Any], None]] = {"transformers.utils.import_utils": _after_import_utils}
"""Functions that change a module right after its import, by the module's name."""


class _HookFinder:
    """Finds the modules of HOOKS for the import system, and runs each one's hook after the module."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        """Return the module's own spec, whose loader also runs the hook; None for all other modules."""
        hook = HOOKS.get(name)
        spec = None if hook is None else PathFinder.find_spec(name, path, target)
        if hook is None or spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_hook(module: Any) -> None:
            execute(module)
            hook(module)

        # It is set on the loader instance, which belongs to this spec only, so the loader keeps its class, by which
        # inspect and importlib.resources find sources. `setattr`, because mypy knows exec_module as a method.
        setattr(spec.loader, "exec_module", execute_and_hook)  # noqa: B010
        return spec
