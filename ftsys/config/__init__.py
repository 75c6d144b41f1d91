"""Reads run files strictly into one typed, frozen tree. Imports no torch.

`load_run(path, overrides)` reads a run file and reports every mistake in one ConfigError. The public names are imported
on first use, so that a command without a run file does not import the reader.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftsys.config.best_checks import best_metric
    from ftsys.config.build import build_run, known_keys, plain_tree
    from ftsys.config.checks import lowest_stage
    from ftsys.config.identity import identity_parts, run_identity
    from ftsys.config.load import load_run, parse_overrides, read_run_file, resolved_tree
    from ftsys.config.overrides import split_overrides
    from ftsys.config.run_config import RunConfig
    from ftsys.config.schema import (
        BatchSection,
        DataSection,
        EngineSection,
        LaunchSection,
        LoraSection,
        ModelSection,
        TaskSection,
        TrainSection,
    )
    from ftsys.config.task_checks import resolve_task
    from ftsys.config.toml import dump_toml, dump_tree
    from ftsys.config.trainer_fields import OWNED_TRAINER_FIELDS

_HOMES = {
    "best_checks": ("best_metric",),
    "build": ("build_run", "known_keys", "plain_tree"),
    "checks": ("lowest_stage",),
    "identity": ("identity_parts", "run_identity"),
    "load": ("load_run", "parse_overrides", "read_run_file", "resolved_tree"),
    "run_config": ("RunConfig",),
    "schema": (
        "BatchSection",
        "DataSection",
        "EngineSection",
        "LaunchSection",
        "LoraSection",
        "ModelSection",
        "TaskSection",
        "TrainSection",
    ),
    "task_checks": ("resolve_task",),
    "toml": ("dump_toml", "dump_tree"),
    "trainer_fields": ("OWNED_TRAINER_FIELDS",),
    "overrides": ("split_overrides",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


__all__ = [
    "OWNED_TRAINER_FIELDS",
    "BatchSection",
    "DataSection",
    "EngineSection",
    "LaunchSection",
    "LoraSection",
    "ModelSection",
    "RunConfig",
    "TaskSection",
    "TrainSection",
    "best_metric",
    "build_run",
    "dump_toml",
    "dump_tree",
    "identity_parts",
    "known_keys",
    "load_run",
    "lowest_stage",
    "parse_overrides",
    "plain_tree",
    "read_run_file",
    "resolve_task",
    "resolved_tree",
    "run_identity",
    "split_overrides",
]


def __getattr__(name: str) -> object:
    """Import a public name from its module; raises AttributeError for any other."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'ftsys.config' has no attribute {name!r}")
    return getattr(import_module(f"ftsys.config.{_HOME_OF[name]}"), name)
