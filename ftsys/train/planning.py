"""Makes a run's plan in this rank's world: every automatic choice. Later attempts take it from the checkpoint."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from typing_extensions import TypedDict

from ftsys.config import RunConfig, identity_parts
from ftsys.data.batching.plan import plan_epoch
from ftsys.data.store.reader import StoreSplit
from ftsys.distributed import all_gather_json
from ftsys.errors import ConfigError, FtsysError
from ftsys.files.integrity import damage_of
from ftsys.files.json_safe import json_safe
from ftsys.run_folder.layout import PLAN
from ftsys.train.checkpoint.catalog import Checkpoint, complete_checkpoints
from ftsys.train.checkpoint.files import read_json
from ftsys.train.perf.product_rates import product_rates
from ftsys.train.scheduler_world import ALONE
from launcher.planner.deepspeed_config import user_json_of
from launcher.planner.model_shape import ModelShape
from launcher.planner.plan import Plan, World, make_plan, this_machine

GIB = 2**30


def rank_world(measured: bool = False) -> World:
    """Return the world that this rank's environment and torch report; with a CPU's `measured` rates where asked."""
    if not torch.cuda.is_available():
        return this_machine(os.environ, device="cpu", rates=product_rates() if measured else None)
    return this_machine(
        os.environ, device="cuda", bf16_supported=torch.cuda.is_bf16_supported(False), device_memory=_smallest_memory()
    )


def _smallest_memory() -> int:
    """Return the memory of the smallest visible GPU in whole GiB, so that ranks of one machine agree to the byte."""
    sizes = [torch.cuda.get_device_properties(index).total_memory for index in range(torch.cuda.device_count())]
    return int(min(sizes) // GIB * GIB)


def resolve_plan(run: RunConfig, train_split: StoreSplit, packed: bool, model: ModelShape | None = None) -> Plan:
    """Make every automatic choice for this rank's world. Raises ConfigError with all that cannot work in it.

    `model` is the shape of the model that is trained; None where it is not known: then no choice depends on memory.
    """
    user_json = user_json_of(run)
    world, rows = rank_world(measured=run.engine.precision != "fp32"), len(train_split)
    plan = make_plan(run, world, train_rows=rows, packed=packed, deepspeed_json=user_json, model=model)
    if plan.global_tokens is None:
        return plan
    steps = len(plan_epoch(train_split.lengths, run.train.seed, 0, global_tokens=plan.global_tokens, order=plan.order))
    return make_plan(run, world, rows, steps_per_epoch=steps, packed=packed, deepspeed_json=user_json, model=model)


def plan_with_micro_tokens(
    run: RunConfig, train_split: StoreSplit, tokens: int, *, packed: bool, model: ModelShape | None
) -> Plan:
    """Make the plan of the same run with micro-batches of `tokens` tokens; else as `resolve_plan`."""
    other = run.model_copy(update={"batch": run.batch.model_copy(update={"micro_tokens": tokens})})
    return resolve_plan(other, train_split, packed=packed, model=model)


class _PlanDocument(TypedDict):
    asked: dict[str, Any]
    plan: dict[str, Any]


def former_plan(run: RunConfig, checkpoints: Path) -> Plan | None:
    """Return the plan in the checkpoint that this attempt resumes, if it was made for the same world and settings.

    A resumed run then computes as before, also where a newer version of this program would choose differently.
    """
    checkpoint = _newest(run, checkpoints)
    if checkpoint is None or PLAN not in checkpoint.files:
        return None
    if damage_of(checkpoint.path, {PLAN: checkpoint.files[PLAN]}):
        return None  # the resume reports the damage
    saved = read_json(checkpoint.path / PLAN, _PlanDocument)
    if saved["asked"] != _asked(run):
        return None
    plan = Plan.from_json(json.dumps(saved["plan"]))
    world = rank_world()
    same = (plan.ranks, plan.nodes, plan.device) == (world.ranks, world.nodes, world.device)
    return plan if same else None


def _newest(run: RunConfig, checkpoints: Path) -> Checkpoint | None:
    """Return the checkpoint to resume by its manifest alone: its bytes are verified when it is resumed."""
    if run.train.resume == "never":
        return None
    if run.train.resume != "auto":
        return Checkpoint.open(Path(run.train.resume))
    return next(reversed(complete_checkpoints(checkpoints)), None)


def plan_document(run: RunConfig, plan: Plan) -> dict[str, Any]:
    """Return what `former_plan` reads, as JSON values."""
    return {"asked": _asked(run), "plan": json.loads(plan.to_json())}


def _asked(run: RunConfig) -> dict[str, Any]:
    """Return the settings that a plan is made from. World, model and data are not among them: they identify the run."""
    asked = run.model_dump(mode="json", include={"batch", "engine", "launch", "trainer"})
    return {**json.loads(json.dumps(asked)), "deepspeed": user_json_of(run), "format": Plan.format}


def check_same_run(run: RunConfig, store: str) -> None:
    """Raise ConfigError on every rank where ranks were given different runs, or other data. Collective.

    `store` is the store's fingerprint: machines may have files of the same name with other rows.
    """
    own = identity_parts(run) | {"output_dir": run.output_dir, "store": store}
    runs = all_gather_json(json_safe(own, finite=False))
    for rank, other in enumerate(runs):
        found = [key for key, value in runs[0].items() if other[key] != value]
        if found:
            told = ", ".join(f"{key} {runs[0][key]!r} on rank 0 and {other[key]!r} on rank {rank}" for key in found)
            raise ConfigError(
                f"the ranks of one world have different runs: {told}. Give all the same run file and overrides; "
                f"tasks of srun or mpirun that are runs of their own need {ALONE}=alone."
            )


def check_planned_alike(plan: Plan) -> None:
    """Raise FtsysError on every rank where ranks planned differently, as on machines that differ. Collective."""
    plans = all_gather_json(json_safe(asdict(plan), finite=False))
    for rank, other in enumerate(plans):
        found = [key for key, value in plans[0].items() if other[key] != value and key not in ("reasons", "notes")]
        if found:
            told = ", ".join(f"{key} {plans[0][key]!r} on rank 0 and {other[key]!r} on rank {rank}" for key in found)
            raise FtsysError(f"the ranks' machines differ: {told}. Name these settings in the run file")
