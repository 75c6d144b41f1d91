"""Tries all of [trainer] on a stand-in, before the run folder is claimed.

transformers and other libraries judge many of these settings late: a tracker when the Trainer is made, the arguments
of an optimizer or of a schedule at the first step. So three steps of a small model are made with them here. Nothing is
written, and no process group is joined.
"""

import enum
import os
import types
import typing
from typing import Any

import torch
import transformers
from torch import nn
from transformers.integrations import get_reporting_integration_callbacks
from transformers.training_args import ParallelMode

from ftsys.config import RunConfig
from ftsys.errors import ConfigError
from ftsys.tasks import Task
from ftsys.train.planning import rank_world
from ftsys.train.setup import argument_values, made_arguments
from ftsys.train.trainer.arguments import TrainingArguments
from ftsys.train.trainer.checkpointers.stock_format import has_two_weights
from launcher.planner.deepspeed_config import user_json_of
from launcher.planner.plan import Plan, make_plan

STEPS = 3
_FAILURES = (ValueError, TypeError, RuntimeError, LookupError, AttributeError, ImportError, AssertionError)
"""What optimizers, schedules and trackers of other libraries raise for a value that they cannot use."""
_STEP_FIELDS = (
    *("optim", "optim_args", "optim_target_modules", "adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay"),
    *("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "log_level", "log_level_replica"),
)


class StandInArguments(TrainingArguments):
    """Arguments of one process on the CPU: they look for no device and join no process group."""

    device = torch.device("cpu")
    n_gpu = 1
    world_size = 1
    process_index = 0
    local_process_index = 0
    parallel_mode = ParallelMode.NOT_PARALLEL


class StandInTrainer(transformers.Trainer):
    """Makes optimizer and schedule of a small model as transformers does, without an engine."""

    def __init__(self, args: TrainingArguments, model: nn.Module) -> None:  # the inherited one makes an engine
        self.args, self.model = args, model
        self.optimizer = self.lr_scheduler = self.optimizer_cls_and_kwargs = None


def try_settings(run: RunConfig, task: Task, rows: int) -> None:
    """Make arguments, trackers, and three steps of a small model, with the run's settings.

    Raises:
        ConfigError: a value that no training could use, with the library's own words.
    """
    ConfigError.raise_if(mistake for name, value in run.trainer.items() if (mistake := _type_mistake(name, value)))
    plan = make_plan(run, rank_world(), train_rows=rows, deepspeed_json=user_json_of(run))
    values = argument_values(run, plan, task)
    values.pop("deepspeed", None)  # its file is checked by the planner, and making it changes how models are loaded
    arguments = made_arguments(StandInArguments, values)
    _try_trackers(arguments)
    try:
        arguments.get_process_log_level()
        _three_steps(arguments, plan)
    except _FAILURES as error:
        given = ", ".join(f"trainer.{name}={run.trainer[name]!r}" for name in _STEP_FIELDS if name in run.trainer)
        raise ConfigError(
            f"{given or 'the optimizer'} cannot be used: {_words(error)}. Correct these settings or leave them out."
        ) from error


def _type_mistake(name: str, value: Any) -> str | None:
    """Return a message for a value of a type that transformers does not declare for the field."""
    hint = typing.get_type_hints(transformers.TrainingArguments)[name]
    allowed = {_plain(kind) for kind in _members(hint)}
    if Any in allowed or type(value) in allowed or (type(value) is int and float in allowed):
        return None
    if isinstance(value, list | tuple) and list in allowed:
        return None
    names = sorted(
        {bool: "true or false", str: "text", dict: "a table", list: "a list"}.get(kind, "a number")
        for kind in allowed
        if kind is not types.NoneType
    )
    return f"trainer.{name}={value!r} cannot be used: write {' or '.join(names)}."


def _members(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _plain(kind: Any) -> Any:
    """Return the type that a TOML file has for a declared one: text for an Enum or a class of another library."""
    kind = typing.get_origin(kind) or kind
    if kind in (Any, bool, int, float, str, dict, list, types.NoneType):
        return kind
    return str if isinstance(kind, type) and issubclass(kind, enum.Enum) else dict


def _try_trackers(arguments: TrainingArguments) -> None:
    """Import the libraries of trainer.report_to. Raises ConfigError for one that is unknown or not installed."""
    for name in arguments.report_to:
        try:
            for tracker in get_reporting_integration_callbacks([name]):
                tracker()
        except _FAILURES as error:
            raise ConfigError(
                f"trainer.report_to={name!r} cannot be used: {_words(error)}. Install it, or write another tracker."
            ) from error


def _three_steps(arguments: TrainingArguments, plan: Plan) -> None:
    """Train a small model for three steps on the device that the run uses."""
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if plan.device == "cuda" else "cpu"
    if arguments.optim_target_modules is not None:
        arguments.optim_target_modules = "all-linear"  # the names are those of the run's own model
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 2)).to(device)
        trainer = StandInTrainer(arguments, model)
        optimizer = trainer.create_optimizer()
        if has_two_weights(optimizer):
            raise ConfigError(
                f"trainer.optim={arguments.optim!r} evaluates other weights than it trains, which the checkpoints of a "
                "run cannot hold: write another optimizer"
            )
        schedule = trainer.create_scheduler(STEPS, optimizer)
        # A schedule that follows a metric takes its value.
        followed = [] if isinstance(schedule, torch.optim.lr_scheduler.LambdaLR) else [1.0]
        for _ in range(STEPS):
            model(torch.ones(4, 8, device=device)).square().mean().backward()
            optimizer.step()
            schedule.step(*followed)
            optimizer.zero_grad()


def _words(error: BaseException) -> str:
    text = " ".join(str(error).split()).rstrip(".")[:300]
    return text if isinstance(error, ValueError | RuntimeError) and text else f"{type(error).__name__}: {text}"
