"""Finds mistakes between fields of a run file that are each valid on their own."""

from collections.abc import Iterable, Iterator
from operator import attrgetter

from ftsys.config.best_checks import best_mistakes
from ftsys.config.fields import Mistake
from ftsys.config.schema import LoraSection, RunTree
from ftsys.config.task_checks import task_mistakes, task_name, task_of
from ftsys.config.trainer_fields import trainer_mistakes
from ftsys.did_you_mean import did_you_mean, nearest
from ftsys.model_files.parts import PARTS, layers_named
from ftsys.recipes import EITHER_OR


def lowest_stage(offload: str) -> int:
    """Return the lowest ZeRO stage that supports an offload: 1 shards the optimizer states, 3 the weights too."""
    return {"none": 0, "optimizer": 1}.get(offload, 3)


def cross_mistakes(run: RunTree) -> Iterator[Mistake]:
    """Yield every mistake between fields that are each valid on their own."""
    if not run.output_dir.strip():
        text = f'output_dir={run.output_dir!r} names no folder: write output_dir = "runs/NAME" for this run\'s results.'
        yield Mistake(text, ("output_dir",))
    yield from _path_mistakes(run)
    yield from _either_or(run)
    yield from _budgets(run)
    yield from _engine_mistakes(run)
    yield from task_mistakes(run)
    yield from _weight_mistakes(run)
    yield from trainer_mistakes(run)
    yield from _freeze_mistakes(run)
    yield from _lora_mistakes(run)
    yield from best_mistakes(run)


def _path_mistakes(run: RunTree) -> Iterator[Mistake]:
    source = run.data.source
    paths: dict[str, Iterable[str | None]] = {
        "output_dir": [run.output_dir],
        "bundle": [run.bundle],
        "recipe": [run.recipe],
        "model.name": [run.model.name],
        "data.source": source.values() if isinstance(source, dict) else [source],
        "data.store": [run.data.store],
        "engine.deepspeed": [run.engine.deepspeed],
        "engine.offload": [run.engine.offload],
        "train.resume": [run.train.resume],
    }
    for key, values in paths.items():
        for value in values:
            if value is not None and "\0" in value:
                yield Mistake(
                    f"{key}={value!r} has the character \\0, which no path can have: write it without.",
                    (key,),
                )


def _either_or(run: RunTree) -> Iterator[Mistake]:
    for pair in EITHER_OR:
        given = [f"{key}={value!r}" for key in pair if (value := attrgetter(key)(run)) is not None]
        if len(given) == 2:
            yield Mistake(f"{' and '.join(given)} exclude each other: write one of the two.", pair)


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


def _weight_mistakes(run: RunTree) -> Iterator[Mistake]:
    weights, key = run.train.class_weights, "train.class_weights"
    if weights == "none" or not task_name(run):
        return
    task = task_of(run)
    shown = f"{key}={dict(weights) if isinstance(weights, dict) else weights!r}"
    if task.regression:
        yield Mistake(f"{shown} weighs classes, and task {task.name!r} is a regression: leave it out.", (key,))
    elif isinstance(weights, tuple) and len(weights) != len(task.labels):
        text = f"{shown} has {len(weights)} numbers, and task {task.name!r} has {len(task.labels)} labels: write one "
        yield Mistake(text + "for each label, in the order of task.labels.", (key, "task.labels"))
    elif isinstance(weights, dict):
        for name in weights.keys() - set(task.labels):
            text = (
                f"{shown} names {name!r}, which is no label of task {task.name!r}: {did_you_mean(name, task.labels)}."
            )
            yield Mistake(text, (key, "task.labels"))


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


def _freeze_mistakes(run: RunTree) -> Iterator[Mistake]:
    given = f"train.freeze={list(run.train.freeze)!r}"
    for part in run.train.freeze:
        if part not in PARTS and not layers_named(part):
            near = nearest(part, PARTS)
            advice = f"did you mean {near!r}?" if near else f"write some of {', '.join(map(repr, PARTS))}."
            yield Mistake(f"{given}: {part!r} names no part of a model: {advice}", ("train.freeze",))
    if {"encoder", "head"} <= set(run.train.freeze):
        yield Mistake(f"{given} leaves no weight to train: leave 'head' or 'encoder' out.", ("train.freeze",))
    if run.train.freeze and run.lora.r is not None:
        text = f"{given} has no use with lora.r={run.lora.r}, which trains adapters and head alone: leave one out."
        yield Mistake(text, ("train.freeze", "lora.r"))


def _lora_mistakes(run: RunTree) -> Iterator[Mistake]:
    lora, engine = run.lora, run.engine
    if lora.r is None:
        for name in sorted(lora.model_fields_set - {"r"}):
            if getattr(lora, name) != LoraSection.model_fields[name].default:
                text = f"lora.{name}={getattr(lora, name)!r} has no effect without a rank: write lora.r = 8."
                yield Mistake(text, (f"lora.{name}", "lora.r"))
        return
    targets = list(lora.target_modules)
    if not targets or (len(targets) > 1 and {"auto", "all"}.intersection(targets)):
        text = f'lora.target_modules={targets!r} cannot be used: write "auto", "all" or a list of names.'
        yield Mistake(text, ("lora.target_modules",))
    whole = f"and lora.r={lora.r} needs each rank to hold them whole"
    if engine.zero_stage == 3:
        yield Mistake(f"engine.zero_stage=3 splits the weights, {whole}: write 2.", ("engine.zero_stage", "lora.r"))
    if engine.offload not in ("none", "optimizer"):
        text = f'engine.offload={engine.offload!r} moves the weights, {whole}: write "optimizer".'
        yield Mistake(text, ("engine.offload", "lora.r"))
