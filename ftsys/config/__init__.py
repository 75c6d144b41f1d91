"""The run file: one typed, frozen tree, read strictly. Imports no torch.

`load_run(path, overrides)` reads it; every mistake in it is reported in one ConfigError.
"""

from ftsys.config.build import build_run, known_keys, plain_tree
from ftsys.config.checks import lowest_stage
from ftsys.config.identity import identity_parts, run_identity
from ftsys.config.load import load_run, parse_overrides, read_run_file, resolved_tree, split_overrides
from ftsys.config.schema import (
    BatchSection,
    DataSection,
    EngineSection,
    LaunchSection,
    ModelSection,
    RunConfig,
    TaskSection,
    TrainSection,
)
from ftsys.config.task_checks import task_mistakes, task_of
from ftsys.config.toml import dump_toml
from ftsys.config.trainer_fields import OWNED_TRAINER_FIELDS
from ftsys.errors import ConfigError
from ftsys.tasks import Task

__all__ = [
    "OWNED_TRAINER_FIELDS",
    "BatchSection",
    "DataSection",
    "EngineSection",
    "LaunchSection",
    "ModelSection",
    "RunConfig",
    "TaskSection",
    "TrainSection",
    "build_run",
    "dump_toml",
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


def resolve_task(run: RunConfig) -> Task:
    """The task's row: GLUE's or the paraphrase sample's with what [task] changes, or a task of the run file's own.

    Raises ConfigError where [task] and data.source do not make one (`load_run` has checked that already).
    """
    ConfigError.raise_if(mistake.text for mistake in task_mistakes(run))
    return task_of(run)
