"""Who may import whom, read from the sources; and what the cheap commands leave unloaded."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# The rooms of ftsys from the bottom up. A room may import from its own and from lower ones.
FLOORS = (
    ("errors", "tasks", "files", "cache", "ranks", "did_you_mean", "integrity", "lease", "distributed"),
    ("config", "fast_import", "model_files"),
    ("run_folder", "metrics", "report"),
    ("data", "kernels"),
    ("models",),
    ("train",),
    ("probe", "offline", "bench"),
    ("cli", "demo", "run_glue", "__main__"),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
STRANGERS = {frozenset(("data", "kernels"))}
PLANNER = "launcher.planner"
LAUNCHER_READS = {"ftsys.config", "ftsys.tasks", "ftsys.errors", "ftsys.model_files.config", "ftsys.run_folder"}
PLANNING_ROOMS = {"train", "probe", "bench", "cli", "demo", "run_glue"}
HEAVY = {"torch", "transformers", "datasets", "deepspeed", "pandas", "sklearn", "scipy"}
STOCK_TRAINER = {"Trainer", "TrainingArguments"}


@dataclass(frozen=True)
class Import:
    """One imported thing: `module` as written, `name` taken from it or "" for the module itself."""

    line: int
    module: str
    name: str
    lazy: bool


def imports_of(source: str) -> Iterator[Import]:
    """Every import in the text; `lazy` tells those that importing the module does not run."""
    tree = ast.parse(source)
    lazy = {id(inner) for outer in ast.walk(tree) if runs_later(outer) for inner in ast.walk(outer)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, "", id(node) in lazy)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for alias in node.names:
                yield Import(node.lineno, module, alias.name, id(node) in lazy)


def runs_later(node: ast.AST) -> bool:
    """Whether the node's inside runs when it is called, or only under a type checker."""
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def room_of(module: str) -> str:
    """The room of a module of ftsys: "data" for ftsys.data.store.reader, "" for ftsys itself."""
    return module.partition(".")[2].partition(".")[0]


def homes(found: Import) -> tuple[str, ...]:
    """The module that an import names; for `from ftsys import data` the room it takes."""
    if found.module in ("ftsys", "launcher"):
        return (f"{found.module}.{found.name}",) if found.name else (found.module,)
    return (found.module,)


def mistake(importer: str, found: Import) -> str | None:
    """What is wrong with one import in the module `importer`, or None."""
    if found.module.startswith("."):
        return "a relative import"
    target = homes(found)[0]
    package, _, _ = target.partition(".")
    if importer.startswith("launcher"):
        return launcher_mistake(target, package)
    room = room_of(importer)
    if package == "ftsys" and room:
        return arrow_mistake(room, target)
    if package == "launcher":
        allowed = room == "bench" or (room in PLANNING_ROOMS and within(target, PLANNER))
        return None if allowed else f"{room or 'ftsys'} may not import {target}"
    return stack_mistake(room, found, package)


def within(module: str, package: str) -> bool:
    """Whether `module` is `package` or lies in it."""
    return module == package or module.startswith(f"{package}.")


def launcher_mistake(target: str, package: str) -> str | None:
    if package == "ftsys" and not any(within(target, one) for one in LAUNCHER_READS):
        return f"launcher may not import {target}"
    return f"launcher may not import {package}" if package in HEAVY else None


def arrow_mistake(room: str, target: str) -> str | None:
    other = room_of(target)
    if other == "__version__":
        return None
    if other not in FLOOR or room not in FLOOR:
        return f"{room} or {other} has no floor in this test's table"
    upward = FLOOR[other] > FLOOR[room]
    return f"{room} may not import {target}" if upward or frozenset((room, other)) in STRANGERS else None


def stack_mistake(room: str, found: Import, package: str) -> str | None:
    if room in ("train", "bench"):
        return None
    if package == "deepspeed":
        return "only train touches DeepSpeed"
    if package == "transformers" and (found.name in STOCK_TRAINER or found.module.startswith("transformers.trainer")):
        return "only train touches the stock Trainer"
    cheap = room in ("", "errors", "tasks", "files", "model_config", "config", "cli", "demo", "__main__")
    return f"{package} at the top of a cheap module" if cheap and package in HEAVY and not found.lazy else None


def sources(repository: Path) -> dict[str, Path]:
    """Module name -> file, of both packages."""
    files = [path for top in ("ftsys", "launcher") for path in sorted((repository / top).rglob("*.py"))]
    parts = {path: path.relative_to(repository).with_suffix("").parts for path in files}
    return {".".join(part for part in names if part != "__init__"): path for path, names in parts.items()}


def test_no_arrow_points_upward(repository: Path) -> None:
    modules = sources(repository)
    assert {"ftsys", "ftsys.errors", "ftsys.config"} <= set(modules)
    wrong = [
        f"{name}:{found.line}: {reason}"
        for name, path in modules.items()
        for found in imports_of(path.read_text())
        if (reason := mistake(name, found))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("importer", "source"),
    [
        ("ftsys.config.load", "from ftsys.data import store"),
        ("ftsys.config.load", "def f():\n    from ftsys.data.store.reader import Store"),
        ("ftsys.config.load", "import torch"),
        ("ftsys.data.store.reader", "from ftsys.kernels.select import KERNELS"),
        ("ftsys.kernels.attention", "import ftsys.data.store.reader"),
        ("ftsys.metrics", "from ftsys import train"),
        ("ftsys.models.packed", "import deepspeed.comm"),
        ("ftsys.models.packed", "from transformers import Trainer"),
        ("ftsys.models.packed", "from transformers.trainer_utils import set_seed"),
        ("ftsys.data.store.reader", "from .rows import Rows"),
        ("ftsys.data.store.reader", "from launcher.planner.plan import Plan"),
        ("ftsys.train.run", "from launcher.backends.agents import start"),
        ("ftsys.train.run", "from launcher import backends"),
        ("ftsys.cli", "from launcher.slurm.batch_script import render"),
        ("ftsys.nowhere", "from ftsys.errors import DataError"),
        ("launcher.planner.plan", "from ftsys.metrics import accuracy"),
        ("launcher.planner.plan", "from ftsys import train"),
        ("launcher.planner.plan", "def f():\n    import torch"),
    ],
)
def test_a_made_up_mistake_is_found(importer: str, source: str) -> None:
    assert [reason for found in imports_of(source) if (reason := mistake(importer, found))]


@pytest.mark.parametrize(
    ("importer", "source"),
    [
        ("ftsys.train.run", "from launcher.planner.plan import make_plan"),
        ("ftsys.train.trainer.trainer", "import deepspeed\nfrom transformers import Trainer"),
        ("ftsys.bench.data", "from transformers import Trainer"),
        ("ftsys.cli", "def f():\n    import torch"),
        ("ftsys.config.schema", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
        ("ftsys.models.packed", "from ftsys.kernels.select import KERNELS\nfrom transformers import AutoModel"),
        ("launcher.planner.plan", "from ftsys.config import RunConfig\nfrom ftsys.config.load import load_run"),
    ],
)
def test_what_is_allowed_passes(importer: str, source: str) -> None:
    assert [reason for found in imports_of(source) if (reason := mistake(importer, found))] == []


def test_the_launcher_and_the_configuration_leave_torch_unloaded(repository: Path) -> None:
    program = (
        "import sys, launcher.cli, launcher.planner.plan\n"
        "import ftsys.config, ftsys.tasks, ftsys.errors, ftsys.cli, ftsys.demo.command\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=repository, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_every_public_name_is_there() -> None:
    import ftsys

    assert len(ftsys.__all__) > 5
    assert [name for name in ftsys.__all__ if getattr(ftsys, name, None) is None] == []
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = ftsys.no_such_name
