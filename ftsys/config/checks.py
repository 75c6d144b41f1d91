"""Finds mistakes between fields of a run file that are each valid on their own."""

from collections.abc import Iterator

from ftsys.config.best_checks import best_mistakes
from ftsys.config.mistake import Mistake
from ftsys.config.schema import RunTree
from ftsys.config.task_checks import task_mistakes
from ftsys.config.trainer_fields import trainer_mistakes


def lowest_stage(offload: str) -> int:
    """Return the lowest ZeRO stage that supports an offload: 1 shards the optimizer states, 3 the weights too."""
    return {"none": 0, "optimizer": 1}.get(offload, 3)


def cross_mistakes(run: RunTree) -> Iterator[Mistake]:
    """Yield every mistake between fields that are each valid on their own."""
    if not run.output_dir.strip():
        text = f'output_dir={run.output_dir!r} names no folder: write output_dir = "runs/NAME" for this run\'s results.'
        yield Mistake(text, ("output_dir",))
    yield from _either_or(run)
    yield from _budgets(run)
    yield from _engine_mistakes(run)
    yield from task_mistakes(run)
    yield from trainer_mistakes(run)
    yield from best_mistakes(run)


def _either_or(run: RunTree) -> Iterator[Mistake]:
    pairs = (
        ("train.epochs", run.train.epochs, "train.max_steps", run.train.max_steps),
        ("batch.global_size", run.batch.global_size, "batch.global_tokens", run.batch.global_tokens),
    )
    for key, value, other, other_value in pairs:
        if value is not None and other_value is not None:
            text = f"{key}={value!r} and {other}={other_value!r} exclude each other: write one of the two."
            yield Mistake(text, (key, other))


def _budgets(run: RunTree) -> Iterator[Mistake]:
    length = run.data.max_length
    for key, tokens in (
        ("batch.micro_tokens", run.batch.micro_tokens),
        ("batch.global_tokens", run.batch.global_tokens),
    ):
        if isinstance(tokens, int) and tokens < length:
            text = (
                f"{key}={tokens!r} is smaller than data.max_length={length!r}: the longest example does not fit. "
                f"Raise the budget to {length} or lower the length."
            )
            yield Mistake(text, (key, "data.max_length"))


def _engine_mistakes(run: RunTree) -> Iterator[Mistake]:
    engine = run.engine
    stage, backend, offload = engine.zero_stage, engine.backend, engine.offload
    if backend in ("ddp", "none") and stage in (1, 2, 3):
        text = (
            f"engine.zero_stage={stage!r} needs DeepSpeed, but engine.backend={backend!r}: "
            f'write backend = "deepspeed" or zero_stage = 0.'
        )
        yield Mistake(text, ("engine.zero_stage", "engine.backend"))
    if backend in ("ddp", "none") and engine.deepspeed:
        text = (
            f"engine.deepspeed={engine.deepspeed!r} needs DeepSpeed, but engine.backend={backend!r}: "
            f'write backend = "deepspeed" or leave the file out.'
        )
        yield Mistake(text, ("engine.deepspeed", "engine.backend"))
    if offload != "none" and backend in ("ddp", "none"):
        text = (
            f"engine.offload={offload!r} needs DeepSpeed, but engine.backend={backend!r}: "
            f'write backend = "deepspeed" or offload = "none".'
        )
        yield Mistake(text, ("engine.offload", "engine.backend"))
    lowest = lowest_stage(offload)
    if stage != "auto" and stage < lowest:
        text = (
            f"engine.offload={offload!r} needs ZeRO stage {lowest} or above, but engine.zero_stage={stage!r}: raise it."
        )
        yield Mistake(text, ("engine.offload", "engine.zero_stage"))
