"""Trains in one rank, once the store is there: open a session (model, plan, Trainer), then train it."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import psutil
import torch
from torch import Tensor
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import SaveStrategy

from ftsys.config import RunConfig, dump_toml, run_identity
from ftsys.console import printer
from ftsys.data.bundle import model_folder_of
from ftsys.data.class_weights import Setting, class_weights
from ftsys.data.store.reader import Store
from ftsys.distributed import decided_by_rank_0, stay_on_loopback
from ftsys.fast_import.hooks import end_fast_import
from ftsys.files.atomic import atomic_write_json, atomic_write_text
from ftsys.kernels.select import why_not_fast
from ftsys.models.packed import why_not_packable
from ftsys.ranks import is_main_rank
from ftsys.report.log_filters import quiet_libraries
from ftsys.run_folder.claim import Claim
from ftsys.run_folder.environment import environment
from ftsys.run_folder.layout import CHECKPOINTS, DEEPSPEED, ENVIRONMENT, PLAN, RUN_FILE, TENSORBOARD
from ftsys.run_folder.report_facts import DataFacts, write_data_facts
from ftsys.tasks import Task
from ftsys.train.callbacks.early_stopping import EarlyStop
from ftsys.train.callbacks.energy import EnergyMeter
from ftsys.train.callbacks.graceful_stop import GracefulStop
from ftsys.train.callbacks.matmul_samples import MatmulSamples
from ftsys.train.callbacks.metrics import MetricsLog
from ftsys.train.callbacks.progress import ProgressCallback
from ftsys.train.callbacks.status import StatusCallback
from ftsys.train.callbacks.watchdog_marks import WatchdogMarks
from ftsys.train.checkpoint.optimizer_layout import frozen_weights
from ftsys.train.fault_tolerance.out_of_memory import memory_explained
from ftsys.train.fault_tolerance.watchdog import Watchdog
from ftsys.train.planning import (
    check_planned_alike,
    check_same_run,
    former_plan,
    plan_document,
    plan_with_micro_tokens,
    resolve_plan,
)
from ftsys.train.setup import check_recomputable, deepspeed_settings, load_model, metrics_of, training_arguments
from ftsys.train.trainable.choose import choose_trained, trained_share
from ftsys.train.trainer.checkpointers.resume import checkpoint_to_resume
from ftsys.train.trainer.checkpointers.run_folder import Attempt, RunFolderCheckpointer
from ftsys.train.trainer.hooks import RunHooks
from ftsys.train.trainer.predictions import EvaluationStopped
from ftsys.train.trainer.trainer import Trainer
from launcher.planner.deepspeed_config import to_text, user_json_of
from launcher.planner.deepspeed_notes import notes_on_json
from launcher.planner.model_shape import known_shape
from launcher.planner.model_shape.trained import trained_shape
from launcher.planner.plan import Plan

COMPUTED_IN = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def say(line: str) -> None:
    """Print a line for people from rank 0, on standard error: standard output holds results only."""
    if is_main_rank():
        printer.say(line)


@dataclass
class Session:
    """Everything that trains a run in this rank, and that `finish` needs afterwards."""

    run: RunConfig
    task: Task
    store: Store
    claim: Claim
    plan: Plan
    smaller: Callable[[int], Plan]
    """Returns the plan with another number of tokens in a micro-batch."""
    trainer: Trainer
    checkpointer: RunFolderCheckpointer
    stopping: GracefulStop
    progress: ProgressCallback
    folder: Path
    fresh: list[str]
    """Names of weights that were not pre-trained."""
    matmul_samples: MatmulSamples
    energy: EnergyMeter
    originals: dict[str, Tensor]
    """Frozen weights in float32, by name, on the first rank: those of the model may be rounded while it is trained."""
    timing: dict[str, float] = field(default_factory=dict)
    """Seconds by phase."""


class _FirstStep(TrainerCallback):
    """Measures seconds from the start of this process to the first optimizer step."""

    seconds: float | None = None

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Read the clock once."""
        if self.seconds is None:
            self.seconds = time.time() - psutil.Process().create_time()


def open_session(run: RunConfig, task: Task, store: Store, claim: Claim, watchdog: Watchdog) -> Session:
    """Load the model, make the plan and the Trainer, join the process group and the watchdog's heartbeat.

    Raises ConfigError for settings that cannot work here, FtsysError where ranks planned differently.
    """
    quiet_libraries()
    folder, train_split = watchdog.status_writer.folder, store.splits[str(task.train_split)]
    chosen = run.model
    model, fresh = load_model(
        model_folder_of(run), task, run.train.seed, chosen.head, chosen.trust_remote_code, run.train.dropout
    )
    shape = trained_shape(known_shape(model.config.to_dict(), task.num_outputs), run)
    choose_trained(model, run, fresh)
    originals, packed = frozen_weights(model) if is_main_rank() else {}, why_not_packable(model) is None
    plan = former_plan(run, folder / CHECKPOINTS) or resolve_plan(run, train_split, packed=packed, model=shape)
    check_recomputable(model, plan)
    if plan.backend == "deepspeed":
        _prepare_deepspeed(run, plan)
    stay_on_loopback()
    arguments = training_arguments(run, plan, task)
    check_same_run(run, store.fingerprint)  # then a rank that reports for rank 0 writes into the same run folder
    watchdog.begin(arguments.process_index, arguments.world_size)
    check_planned_alike(plan)
    stopping, progress = GracefulStop(watchdog.interruption), ProgressCallback()
    hooks = run_hooks(stopping, progress)
    checkpointer = RunFolderCheckpointer(_attempt(run, plan, claim, folder, store), hooks)
    samples, energy = MatmulSamples(COMPUTED_IN[plan.precision]), EnergyMeter()
    callbacks = [*_callbacks(folder, claim, task, stopping), WatchdogMarks(watchdog), progress, samples, energy]
    callbacks += [EarlyStop.of(run.train.early_stopping)] if run.train.early_stopping else []
    with watchdog.compiling():
        trainer = _trainer(model, arguments, task, store, callbacks, checkpointer, hooks, run.train.class_weights)
    packed = trainer.parts.packing.view is not None
    smaller = partial(plan_with_micro_tokens, run, train_split, packed=packed, model=shape)
    parts = (trainer, checkpointer, stopping, progress, folder, fresh, samples, energy, originals)
    return Session(run, task, store, claim, plan, smaller, *parts)


def run_hooks(stopping: GracefulStop, progress: ProgressCallback | None = None) -> RunHooks:
    """Return the hooks through which a run shows evaluations, stops, and is informed of a failed save."""
    return RunHooks(
        on_evaluation_progress=progress.evaluation if progress is not None else lambda name, done, total: None,
        stop_wanted=lambda: stopping.interruption.wanted,
        evaluation_owed=lambda: stopping.evaluation_owed,
        on_saving_error=stopping.fail,
    )


def _attempt(run: RunConfig, plan: Plan, claim: Claim, folder: Path, store: Store) -> Attempt:
    documents, keep = {PLAN: plan_document(run, plan)}, run.train.save_keep
    return Attempt(folder / CHECKPOINTS, run_identity(run), claim.attempt, keep, documents, store.fingerprint)


def _callbacks(folder: Path, claim: Claim, task: Task, stopping: GracefulStop) -> list[TrainerCallback]:
    return [
        MetricsLog(folder, claim.attempt, task.evaluation_splits, on_error=stopping.fail),
        StatusCallback(folder, claim.attempt, on_error=stopping.fail),
        stopping,
    ]


def _trainer(
    model: PreTrainedModel,
    arguments: TrainingArguments,
    task: Task,
    store: Store,
    callbacks: list[TrainerCallback],
    checkpointer: RunFolderCheckpointer,
    hooks: RunHooks,
    weights: Setting,
) -> Trainer:
    evaluated = {name: store.splits[name] for name in task.evaluation_splits if name in store.splits}
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(Path(arguments.output_dir) / TENSORBOARD))
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=store.splits[str(task.train_split)],
        eval_dataset=evaluated if len(evaluated) > 1 else next(iter(evaluated.values()), None),
        compute_metrics=metrics_of(task),
        callbacks=callbacks,
        checkpointer=checkpointer,
        hooks=hooks,
        class_weights=class_weights(weights, task, store.splits[str(task.train_split)]),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def train_session(session: Session) -> None:
    """Train to the end. Raises StoppedEarly after a signal, with a checkpoint on disk."""
    _describe(session)
    decided_by_rank_0(lambda: _write_plan(session))
    resume = decided_by_rank_0(lambda: checkpoint_to_resume(session.run, session.checkpointer.attempt, say))
    longest = int(session.store.splits[str(session.task.train_split)].lengths.max())
    with memory_explained(session.plan, session.smaller, longest=longest):
        session.timing |= _train(session, resume)
    if session.stopping.agreed:
        leave(session)


def leave(session: Session) -> NoReturn:
    """Raise StoppedEarly; without regular checkpoints the last step gets one, so that nothing is lost. Collective."""
    if session.trainer.args.save_strategy == SaveStrategy.NO:
        session.checkpointer.save_before_leaving(session.trainer)
    raise session.stopping.interruption.error()


def _train(session: Session, resume: str | None) -> dict[str, float]:
    """Train to the end, or to a signal; returns seconds to the first step and in training, evaluations left out."""
    trainer, first_step = session.trainer, _FirstStep()
    trainer.add_callback(first_step)
    end_fast_import()
    start = time.perf_counter()
    try:
        train_until_stopped(trainer, session.checkpointer, session.stopping, resume)
    finally:
        session.progress.close()
    seconds = time.perf_counter() - start - trainer.parts.evaluator.seconds
    return {"startup_s": first_step.seconds or 0.0, "train_s": seconds}


def train_until_stopped(
    trainer: Trainer, checkpointer: RunFolderCheckpointer, stopping: GracefulStop, resume: str | None
) -> None:
    """Train to the end, or to the step or evaluation in which the ranks agree to stop; then there is a checkpoint."""
    try:
        trainer.train(resume_from_checkpoint=resume)
    except EvaluationStopped:
        stopping.agreed = stopping.evaluation_owed = True
        checkpointer.save_before_leaving(trainer)


def _prepare_deepspeed(run: RunConfig, plan: Plan) -> None:
    from ftsys.train.deepspeed_setup import prepare_for_config

    user_json = user_json_of(run)
    for note in notes_on_json(user_json, run, plan) if user_json is not None else ():
        say(f"note: {note}")
    prepare_for_config(deepspeed_settings(run, plan), say)


def _write_plan(session: Session) -> None:
    folder, plan = session.folder, session.plan
    atomic_write_text(folder / RUN_FILE, dump_toml(session.run))
    atomic_write_text(folder / PLAN, plan.to_json())
    atomic_write_json(folder / ENVIRONMENT, environment())
    lengths = {name: np.bincount(split.lengths).tolist() for name, split in session.store.splits.items()}
    write_data_facts(folder, DataFacts(str(session.store.path), session.store.fingerprint, lengths))
    if plan.backend == "deepspeed":
        atomic_write_text(folder / DEEPSPEED, to_text(session.trainer.args.deepspeed))


def _describe(session: Session) -> None:
    """Say what is about to be trained, and how."""
    plan, run, trainer, packing = session.plan, session.run, session.trainer, session.trainer.parts.packing
    ranks = trainer.args.world_size
    engine = {"deepspeed": f", DeepSpeed ZeRO {plan.zero_stage}", "ddp": ", DDP", "none": ""}[plan.backend]
    size = f"{plan.global_size} examples" if plan.global_size else f"{plan.global_tokens:,} tokens"
    say(f"{ranks} {plan.device.upper()} rank{'s' if ranks > 1 else ''}{engine}, {plan.precision}; {size} a step")
    if packing.view is not None:
        slow = why_not_fast(trainer.args.device.type) if run.engine.kernels == "auto" else None
        say(f"packed batches, attention kernel {packing.view.kernel!r}" + (f", because {slow}" if slow else ""))
        if packing.view.compiled:
            say("dropout, residual and LayerNorm are compiled")
        elif packing.eager_because:
            say(f"nothing is compiled, because {packing.eager_because}")
    else:
        say(f"padded batches, because {packing.padded_because}")
    if session.originals:
        say(trained_share(trainer.model))
    if session.fresh:
        rows = len(session.store.splits[str(session.task.train_split)])
        names = ", ".join(session.fresh)
        say(f"freshly initialised (seed {run.train.seed}), learned from {rows:,} rows: {names}")
