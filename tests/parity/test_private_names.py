"""Private names of other libraries: all that we use are in one list, and all of that list are there."""

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module, metadata
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from tests.private_names import OVERRIDDEN, PRIVATE, PYTHONS_OWN, Private

LIBRARIES = (
    "accelerate datasets deepspeed evaluate huggingface_hub onnx optuna peft safetensors sklearn tokenizers torch "
    "transformers"
).split()
NAMES = [(row, name) for row in PRIVATE for name in row.names.split()]


def private(name: str) -> bool:
    """True for a name with an underscore, but not for Python's own such as __len__, unless it is listed."""
    return name.startswith("_") and (not name.startswith("__") or name in {listed for _, listed in NAMES})


def sources(repository: Path) -> dict[Path, ast.Module]:
    return {
        path: ast.parse(path.read_text())
        for folder in ("ftsys", "launcher")
        for path in (repository / folder).rglob("*.py")
    }


def defined(tree: ast.Module) -> Iterator[str]:
    """Every name that a module defines or sets: functions, classes, variables, and attributes of `self`."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                yield name


def used(tree: ast.Module) -> Iterator[str]:
    """Every private name that a module reads from some object, or imports from another library."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name) if private(name):
                yield name
            case ast.Call(func=ast.Name(id="getattr" | "hasattr"), args=[_, ast.Constant(value=str(name)), *_]):
                yield from (name,) if private(name) else ()
            case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] in LIBRARIES:
                inside = any(map(private, module.split(".")))
                yield from (each.name for each in names if inside or private(each.name))


def test_every_private_name_in_our_sources_is_listed(repository: Path) -> None:
    trees = sources(repository)
    own = {name for tree in trees.values() for name in defined(tree)}
    listed = {name for _, name in NAMES} | set(PYTHONS_OWN)
    found = {name: path for path, tree in trees.items() for name in used(tree) if name not in own or name in listed}
    assert {name: str(path) for name, path in found.items() if name not in listed} == {}
    unused = listed - set(found) - set(OVERRIDDEN.names.split())
    assert unused == set(), "listed, and used nowhere: take them off the list"


def test_every_private_method_of_the_stock_trainer_that_ours_replaces_is_listed() -> None:
    import transformers

    from ftsys.train.trainer.trainer import Trainer

    ours = [kind for kind in Trainer.__mro__ if kind.__module__.startswith("ftsys.")]
    replaced = {name for kind in ours for name in vars(kind) if private(name) and hasattr(transformers.Trainer, name)}
    assert replaced <= set(OVERRIDDEN.names.split())


@pytest.mark.parametrize(("row", "name"), NAMES, ids=[f"{row.place}.{name}" for row, name in NAMES])
def test_it_is_in_the_installed_version(row: Private, name: str) -> None:
    library = row.place.partition(":")[0].partition(".")[0]
    if library == "optuna":
        pytest.importorskip("optuna", reason="the extra `sweep` is not installed")
    gone = f"{row.place}.{name} is gone from {library} {metadata.version(library)}. Needed for: {row.why}."
    assert _has(row.place, name), gone


def _has(place: str, name: str) -> bool:
    module, _, kind = place.partition(":")
    try:
        owner: Any = import_module(module)
        owner = attrgetter(kind)(owner) if kind else owner
    except (ImportError, AttributeError):
        return False
    if hasattr(owner, name) or _is_module(f"{module}.{name}"):
        return True
    classes = [each for each in getattr(owner, "__mro__", ()) if each.__module__.partition(".")[0] in LIBRARIES]
    return any(re.search(rf"\b{name}\b", inspect.getsource(each)) for each in classes)  # set on instances


def _is_module(name: str) -> bool:
    try:
        import_module(name)
    except ImportError:
        return False
    return True


def test_a_name_that_is_gone_is_seen() -> None:
    assert not _has("transformers:Trainer", "_no_such_method")
    assert not _has("torch._no_such_module", "TorchDispatchMode")
    assert not _has("transformers:NoSuchClass", "_n_gpu")
