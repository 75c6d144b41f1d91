"""Training in one rank, once the store is there: model, plan, Trainer, evaluation. Imports the heavy libraries."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from ftsys.config import RunConfig, dump_toml, run_identity
from ftsys.data.bundle import model_folder_of
from ftsys.data.store.reader import Store
from ftsys.distributed import decided_by_rank_0
from ftsys.fast_import.hooks import imports_finished
from ftsys.files import atomic_write_json, atomic_write_text
from ftsys.kernels.select import why_not_fast
from ftsys.models.packed import why_not_packable
from ftsys.ranks import is_main_rank
from ftsys.report.log_filters import quiet_libraries
from ftsys.run_folder.claim import Claim
from ftsys.run_folder.environment import environment
from ftsys.run_folder.layout import CHECKPOINTS, DEEPSPEED, ENVIRONMENT, PLAN, RUN_FILE, TENSORBOARD
from ftsys.tasks import Task
from ftsys.train.callbacks.graceful_stop import GracefulStop
from ftsys.train.callbacks.metrics import MetricsLog
from ftsys.train.callbacks.progress import ProgressCallback
from ftsys.train.callbacks.status import StatusCallback
from ftsys.train.callbacks.watchdog_marks import WatchdogMarks
from ftsys.train.checkpoint.catalog import clean_leftovers, named_checkpoint, newest_checkpoint
from ftsys.train.fault_tolerance.out_of_memory import memory_explained
from ftsys.train.fault_tolerance.watchdog import Watchdog
from ftsys.train.planning import check_planned_alike, former_plan, plan_document, resolve_plan
from ftsys.train.setup import check_recomputable, load_model, metrics_of, training_arguments
from ftsys.train.trainer.checkpointing import Life
from ftsys.train.trainer.predictions import EvaluationStopped
from ftsys.train.trainer.trainer import Trainer
from launcher.planner.deepspeed_config import to_text
from launcher.planner.model_shape import known_shape
from launcher.planner.plan import Plan


def say(line: str) -> None:
    """A line for people, from rank 0, on standard error: standard output holds results only."""
    if is_main_rank():
        print(line, file=sys.stderr, flush=True)


@dataclass
class Session:
    """A trained run, as `finish` needs it."""

    run: RunConfig
    task: Task
    store: Store
    plan: Plan
    trainer: Trainer
    folder: Path
    claim: Claim
    stopping: GracefulStop
    timing: dict[str, float]


class _FirstStep(TrainerCallback):
    """Seconds from the start of this process to the first optimizer step."""

    seconds: float | None = None

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look at the clock once."""
        if self.seconds is None:
            self.seconds = time.time() - psutil.Process().create_time()


def train_session(run: RunConfig, task: Task, store: Store, claim: Claim, watchdog: Watchdog) -> Session:
    """Train and return the session. Raises StoppedEarly after a signal, with a checkpoint on disk."""
    quiet_libraries()
    folder, interruption = watchdog.journal.folder, watchdog.interruption
    stopping, train_split = GracefulStop(interruption), store.splits[str(task.train_split)]
    model, fresh = load_model(model_folder_of(run), task, run.train.seed)
    shape = known_shape(model.config.to_dict(), task.num_outputs)
    packed, checkpoints = why_not_packable(model) is None, folder / CHECKPOINTS
    plan = former_plan(run, checkpoints) or resolve_plan(run, train_split, packed=packed, model=shape)
    check_recomputable(model, plan)
    if plan.backend == "deepspeed":
        _prepare_deepspeed(plan)
    arguments = training_arguments(run, plan, task)
    check_planned_alike(plan)
    callbacks = [
        MetricsLog(folder, claim.attempt, task.evaluation_splits, on_error=stopping.fail),
        StatusCallback(folder, claim.attempt, on_error=stopping.fail),
        stopping,
        WatchdogMarks(watchdog),
    ]
    trainer = _trainer(model, arguments, task, store, callbacks)
    trainer.on_saving_error = stopping.fail
    watchdog.begin(arguments.process_index, arguments.world_size)
    documents = {PLAN: plan_document(run, plan)}
    life = trainer.life = Life(checkpoints, run_identity(run), claim.attempt, run.train.save_keep, documents)
    _describe(run, plan, trainer, fresh, len(train_split))
    decided_by_rank_0(lambda: _write_plan(run, plan, arguments, folder))
    resume = decided_by_rank_0(lambda: _resume_from(run, life))

    def replan(tokens: int) -> Plan:
        smaller = run.model_copy(update={"batch": run.batch.model_copy(update={"micro_tokens": tokens})})
        return resolve_plan(smaller, train_split, packed=trainer.view is not None, model=shape)

    with memory_explained(plan, replan, longest=int(train_split.lengths.max())):
        timing = _train(trainer, resume, stopping)
    if stopping.agreed:
        raise interruption.error()
    return Session(run, task, store, plan, trainer, folder, claim, stopping, timing)


def _trainer(
    model: Any, arguments: TrainingArguments, task: Task, store: Store, callbacks: list[TrainerCallback]
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
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _train(trainer: Trainer, resume: str | None, stopping: GracefulStop) -> dict[str, float]:
    """Train to the end, or to a signal; returns seconds to the first step and in training, evaluations left out."""
    progress, first_step = ProgressCallback(), _FirstStep()
    trainer.add_callback(progress)
    trainer.add_callback(first_step)
    trainer.on_evaluation_progress = progress.evaluation
    imports_finished()
    start = time.perf_counter()
    try:
        train_until_stopped(trainer, stopping, resume)
    finally:
        progress.close()
    seconds = time.perf_counter() - start - trainer.evaluation_seconds
    return {"startup_s": first_step.seconds or 0.0, "train_s": seconds}


def train_until_stopped(trainer: Trainer, stopping: GracefulStop, resume: str | None) -> None:
    """Train to the end, or to the step or the evaluation in which the ranks agree to stop, with a checkpoint of it."""
    trainer.owes_evaluation = lambda: stopping.evaluation_owed
    trainer.stop_wanted = lambda: stopping.interruption.wanted
    try:
        trainer.train(resume_from_checkpoint=resume)
    except EvaluationStopped:
        stopping.agreed = stopping.evaluation_owed = True
        trainer.save_before_leaving()


def _prepare_deepspeed(plan: Plan) -> None:
    from ftsys.train.deepspeed_setup import CPU_ADAM_OP, prepare_deepspeed

    if "RANK" not in os.environ:  # one process and no launcher: DeepSpeed would look for MPI
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        os.environ.update(alone, MASTER_PORT="0")  # a store of one process takes any free port
    prepare_deepspeed([CPU_ADAM_OP] if plan.offload != "none" and plan.device == "cuda" else [], say=say)


def _write_plan(run: RunConfig, plan: Plan, arguments: TrainingArguments, folder: Path) -> None:
    atomic_write_text(folder / RUN_FILE, dump_toml(run))
    atomic_write_text(folder / PLAN, plan.to_json())
    atomic_write_json(folder / ENVIRONMENT, environment())
    if plan.backend == "deepspeed":
        atomic_write_text(folder / DEEPSPEED, to_text(arguments.deepspeed))


def _resume_from(run: RunConfig, life: Life) -> str | None:
    clean_leftovers(life.checkpoints, life.attempt)
    if run.train.resume == "never":
        return None
    if run.train.resume != "auto":
        return str(named_checkpoint(Path(run.train.resume), life.identity).path)
    found = newest_checkpoint(life.checkpoints, life.identity, life.attempt, say)
    return None if found is None else str(found.path)


def _describe(run: RunConfig, plan: Plan, trainer: Trainer, fresh: list[str], rows: int) -> None:
    ranks = trainer.args.world_size
    engine = {"deepspeed": f", DeepSpeed ZeRO {plan.zero_stage}", "ddp": ", DDP", "none": ""}[plan.backend]
    size = f"{plan.global_size} examples" if plan.global_size else f"{plan.global_tokens:,} tokens"
    say(f"{ranks} {plan.device.upper()} rank{'s' if ranks > 1 else ''}{engine}, {plan.precision}; {size} a step")
    if trainer.view is not None:
        slow = why_not_fast(trainer.args.device.type) if run.engine.kernels == "auto" else None
        say(f"packed batches, attention kernel {trainer.view.kernel!r}" + (f", because {slow}" if slow else ""))
        if trainer.view.compiled:
            say("dropout, residual and LayerNorm are compiled")
        elif trainer.eager_because:
            say(f"nothing is compiled, because {trainer.eager_because}")
    else:
        say(f"padded batches, because {trainer.padded_because}")
    if fresh:
        say(f"freshly initialised (seed {run.train.seed}), learned from {rows:,} rows: {', '.join(fresh)}")


def computed_dtype(plan: Plan) -> torch.dtype:
    """The type that matrix products of the plan's precision multiply."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[plan.precision]
