"""Predicts the time and the memory of a table's cells, from their tokens and from what finished cells measured."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from ftsys.config import RunConfig
from ftsys.data.store.reader import Store
from ftsys.errors import ConfigError
from ftsys.run_folder.results import read_results
from ftsys.table.cells import Cell
from ftsys.table.prepare import Stores
from launcher.planner.deepspeed_config import user_json_of
from launcher.planner.model_shape.of_run import shape_of_run
from launcher.planner.plan import Plan, make_plan
from launcher.planner.world import World

START_SECONDS = 12.0
"""Seconds that a cell takes beside its passes: imports, preparing, saving, results."""
CPU_UTILISATION = 0.7
"""Fraction of the CPU's rate of matrix products that training is taken to reach until a cell of the model is finished.

0.70 to 0.80 was measured for MiniLM in bf16, with two slots of one thread.
"""
EVALUATION_SPEED = 3.0
"""Speed of evaluation relative to training: a forward pass without its backward pass."""


@dataclass(frozen=True)
class Forecast:
    """The predicted cost of a cell: `seconds` of one slot, and the bytes of a step; None where they are not known."""

    seconds: float | None
    memory: int | None
    steps: int | None


@dataclass(frozen=True)
class Slots:
    """The slots that cells train in: `count` of them, each a GPU or a share of the CPUs with `threads` threads."""

    count: int
    world: World
    threads: int


def forecast(cell: Cell, store: Store, slots: Slots, speed: float | None) -> Forecast:
    """Predict a cell. `speed`: measured tokens/s of the model's finished cells; None before one is finished.

    Raises ConfigError for a model that does not fit the device.
    """
    run, train = cell.origin, store.splits[str(cell.task.train_split)]
    plan = _plan(cell, slots.world, len(train))
    _check_host_memory(cell, plan, slots)
    steps = plan.total_steps or _steps_by_tokens(run, train.total_tokens)
    trained = _trained_tokens(run, steps, len(train), train.total_tokens)
    evaluated, tested = (_tokens(store, names) for names in (cell.task.evaluation_splits, cell.task.test_splits))
    speed = speed or _speed_on_cpu(run, plan, slots) or _speed_on_gpu(plan, trained, steps)
    memory = (plan.predicted or {}).get("bytes", {}).get("total")
    if speed is None or trained is None:
        return Forecast(None, memory, steps)
    predicted = _evaluations(run, steps) * evaluated + tested
    return Forecast(START_SECONDS + (trained + predicted / EVALUATION_SPEED) / speed, memory, steps)


def _tokens(store: Store, names: Sequence[str]) -> int:
    return sum(store.splits[name].total_tokens for name in names if name in store.splits)


def _plan(cell: Cell, world: World, rows: int) -> Plan:
    run = cell.origin
    try:
        return make_plan(run, world, rows, deepspeed_json=user_json_of(run), model=shape_of_run(run)[0])
    except ConfigError as error:
        raise ConfigError(*(f"{cell.model}, {cell.column}: {text}" for text in error.messages)) from error


def _check_host_memory(cell: Cell, plan: Plan, slots: Slots) -> None:
    """Raise ConfigError where all slots together need more than the machine's memory."""
    needed = (plan.predicted or {}).get("bytes", {}).get("total")
    if slots.world.device == "cuda" or needed is None:
        return
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed * slots.count > there:
        advice = "give --slots 1" if slots.count > 1 and needed <= there else "take a smaller model or a smaller batch"
        raise ConfigError(
            f"{cell.model}, {cell.column}: a run needs {needed / 2**30:.1f} GiB, and {slots.count} at a time do not "
            f"fit into the {there / 2**30:.1f} GiB of this machine: {advice}."
        )


def _steps_by_tokens(run: RunConfig, tokens: int) -> int | None:
    size = run.batch.global_tokens
    return None if size is None or run.train.epochs is None else int(run.train.epochs * tokens / size) + 1


def _trained_tokens(run: RunConfig, steps: int | None, rows: int, tokens: int) -> float | None:
    """Return the tokens of the whole training."""
    if run.train.epochs is not None:
        return run.train.epochs * tokens
    if steps is None:
        return None
    step = run.batch.global_tokens or (run.batch.global_size or 0) * tokens / max(rows, 1)
    return steps * step


def _evaluations(run: RunConfig, steps: int | None) -> float:
    """Return the number of evaluations; the final one costs nothing where the last step was evaluated."""
    every = run.train.eval_every
    if every == "never":
        return 1
    if every == "epoch":
        return run.train.epochs or 1
    return max(1, (steps or 0) // every)


def _speed_on_cpu(run: RunConfig, plan: Plan, slots: Slots) -> float | None:
    shape, rates = shape_of_run(run)[0], slots.world.rates
    if shape is None or rates is None:
        return None
    rate = rates.bf16 if plan.precision == "bf16" else rates.fp32
    return rate * CPU_UTILISATION / (6 * shape.computed_parameters)


def _speed_on_gpu(plan: Plan, tokens: float | None, steps: int | None) -> float | None:
    seconds = (plan.predicted or {}).get("seconds")
    return tokens / (seconds * steps) if seconds and tokens and steps else None


def measured_speeds(cells: Sequence[Cell]) -> dict[str, float]:
    """Return the mean real tokens/s of each model's finished cells, by the name of the row."""
    found: dict[str, list[float]] = {}
    for cell in cells:
        speed = (read_results(cell.folder) or {}).get("throughput", {}).get("real_tokens_per_s")
        if isinstance(speed, int | float) and speed > 0:
            found.setdefault(cell.model, []).append(float(speed))
    return {model: fmean(speeds) for model, speeds in found.items()}


def with_rates(slots: Slots) -> Slots:
    """Return CPU slots with the rates of matrix products of one slot; the runs find the same ones in the cache.

    They are measured here, before anything else runs, so that all runs choose the same precision.
    """
    if slots.world.device == "cuda":
        return slots
    import torch

    from ftsys.train.perf.product_rates import product_rates

    threads = torch.get_num_threads()
    torch.set_num_threads(slots.threads)
    try:
        rates = product_rates()
    finally:
        torch.set_num_threads(threads)
    return replace(slots, world=replace(slots.world, rates=rates, bf16_supported=rates.bf16_pays))


def forecasts_of(cells: Sequence[Cell], stores: Stores, slots: Slots) -> dict[tuple[str, str], Forecast]:
    """Predict a cell of each model and column. Raises ConfigError for every model that does not fit the device."""
    slots, speeds = with_rates(slots), measured_speeds(cells)
    found: dict[tuple[str, str], Forecast] = {}
    wrong: dict[str, None] = {}
    for cell in {(cell.model, cell.column): cell for cell in cells}.values():
        key = cell.model, cell.column
        try:
            found[key] = forecast(cell, stores[key], slots, speeds.get(cell.model))
        except ConfigError as error:
            wrong |= dict.fromkeys(error.messages)
    ConfigError.raise_if(wrong)
    return found
