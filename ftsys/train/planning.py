"""Every automatic choice of a run in this rank's world: made once; later lives take it from the checkpoint."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ftsys.config import RunConfig
from ftsys.data.batching.plan import plan_epoch
from ftsys.data.store.reader import StoreSplit
from ftsys.distributed import from_all
from ftsys.errors import FtsysError
from ftsys.integrity import damage_of
from ftsys.run_folder.layout import PLAN
from ftsys.train.checkpoint.catalog import Checkpoint, complete_checkpoints
from ftsys.train.checkpoint.files import read_json
from launcher.planner.deepspeed_config import read_user_json
from launcher.planner.model_shape import ModelShape
from launcher.planner.plan import Plan, World, make_plan, this_machine

GIB = 2**30


def rank_world() -> World:
    """The world as this rank's environment and torch show it."""
    if not torch.cuda.is_available():
        return this_machine(os.environ, device="cpu")
    return this_machine(
        os.environ, device="cuda", bf16_supported=torch.cuda.is_bf16_supported(False), device_memory=_smallest_memory()
    )


def _smallest_memory() -> int:
    """Whole GiB of the smallest GPU in sight, so that ranks of one machine agree to the byte."""
    sizes = [torch.cuda.get_device_properties(index).total_memory for index in range(torch.cuda.device_count())]
    return int(min(sizes) // GIB * GIB)


def resolve_plan(run: RunConfig, train_split: StoreSplit, packed: bool, model: ModelShape | None = None) -> Plan:
    """Every automatic choice for this rank's world. Raises ConfigError with all that cannot work in it.

    `model` is the shape of what is trained, None where its sizes are not known: then no choice depends on memory.
    """
    user_json = read_user_json(run.engine.deepspeed) if run.engine.deepspeed else None
    world, rows = rank_world(), len(train_split)
    plan = make_plan(run, world, train_rows=rows, packed=packed, deepspeed_json=user_json, model=model)
    if plan.global_tokens is None:
        return plan
    steps = len(plan_epoch(train_split.lengths, run.train.seed, 0, global_tokens=plan.global_tokens, order=plan.order))
    return make_plan(run, world, rows, steps_per_epoch=steps, packed=packed, deepspeed_json=user_json, model=model)


def former_plan(run: RunConfig, checkpoints: Path) -> Plan | None:
    """The plan in the checkpoint that this life goes on from, if it was made for the same world and the same settings.

    So a resumed run computes as it did, also where a newer version of this program would choose otherwise.
    """
    checkpoint = _newest(run, checkpoints)
    if checkpoint is None or PLAN not in checkpoint.files:
        return None
    if damage_of(checkpoint.path, {PLAN: checkpoint.files[PLAN]}):
        return None  # whoever resumes from it will say so
    saved = read_json(checkpoint.path / PLAN)
    if saved["asked"] != _asked(run):
        return None
    plan = Plan.from_json(json.dumps(saved["plan"]))
    world = rank_world()
    same = (plan.ranks, plan.nodes, plan.device) == (world.ranks, world.nodes, world.device)
    return plan if same else None


def _newest(run: RunConfig, checkpoints: Path) -> Checkpoint | None:
    """By its manifest alone: whether its bytes are whole is looked at when it is resumed."""
    if run.train.resume == "never":
        return None
    if run.train.resume != "auto":
        return Checkpoint.open(Path(run.train.resume))
    return next(reversed(complete_checkpoints(checkpoints)), None)


def plan_document(run: RunConfig, plan: Plan) -> dict[str, Any]:
    """What `former_plan` reads, in JSON values."""
    return {"asked": _asked(run), "plan": json.loads(plan.to_json())}


def _asked(run: RunConfig) -> dict[str, Any]:
    """What a plan is made from, besides the world, the model and the data, which make a run what it is."""
    asked = run.model_dump(mode="json", include={"batch", "engine", "launch", "trainer"})
    own = read_user_json(run.engine.deepspeed) if run.engine.deepspeed else None
    return {**json.loads(json.dumps(asked)), "deepspeed": own, "format": Plan.format}


def check_planned_alike(plan: Plan) -> None:
    """Raise FtsysError on every rank where ranks planned differently, as they do on unlike machines. Collective."""
    plans = [asdict(other) for other in from_all(plan)]
    for rank, other in enumerate(plans):
        found = [key for key, value in plans[0].items() if other[key] != value and key not in ("reasons", "notes")]
        if found:
            told = ", ".join(f"{key} {plans[0][key]!r} on rank 0 and {other[key]!r} on rank {rank}" for key in found)
            raise FtsysError(f"the ranks' machines differ: {told}. Name these settings in the run file")
