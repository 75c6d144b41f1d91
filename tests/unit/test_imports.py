"""Tests who may import whom, read from the sources, and that the cheap commands load no heavy library."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools.import_order import HEAVY, mistakes
from tools.imports import imports_of, sources


def test_no_arrow_points_upward(repository: Path) -> None:
    modules = sources(repository)
    assert {"ftsys", "ftsys.errors", "ftsys.config"} <= set(modules)
    wrong = [
        f"{name}:{line}: {reason}"
        for name, path in modules.items()
        for line, reason in mistakes(name, imports_of(path.read_text()))
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
        ("launcher.planner.plan", "from ftsys.run_folder.status import read_status"),
        ("launcher.planner.cost.memory", "from launcher.host.machine import Machine"),
        ("launcher.planner.world", "from launcher import controller"),
        ("launcher.planner", "import launcher.cli"),
    ],
)
def test_a_made_up_mistake_is_found(importer: str, source: str) -> None:
    assert mistakes(importer, imports_of(source))


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
        (
            "launcher.planner.plan",
            "from launcher.planner import world\nfrom launcher.planner.cost.memory import Memory",
        ),
        ("launcher.commands.plan", "from launcher.host.machine import Machine\nfrom launcher.planner.plan import Plan"),
    ],
)
def test_what_is_allowed_passes(importer: str, source: str) -> None:
    assert mistakes(importer, imports_of(source)) == []


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
