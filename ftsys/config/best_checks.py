"""Checks train.keep_best and train.early_stopping, and names the metric that decides which evaluation is the best."""

from collections.abc import Iterator

from ftsys.config.mistake import Mistake
from ftsys.config.schema import RunTree
from ftsys.config.task_checks import task_name, task_of
from ftsys.config.trainer_fields import best_metrics
from ftsys.did_you_mean import did_you_mean
from ftsys.tasks import Task

_TRAINER_WAY = ("load_best_model_at_end", "metric_for_best_model", "greater_is_better")
KEEP_BEST, EARLY_STOPPING = "train.keep_best", "train.early_stopping"


def best_metric(run: RunTree) -> str:
    """Return the metric that decides which evaluation is the best, by its name in evaluations.

    It is that of train.keep_best, of train.early_stopping or of [trainer], else the task's first metric. With several
    evaluation splits the first split's metric is meant, unless the name begins with a split's.
    """
    task, stopping = task_of(run), run.train.early_stopping
    asked = run.train.keep_best or (stopping.metric if stopping else "")
    return _full_name(str(asked or run.trainer.get("metric_for_best_model") or task.metrics[0]), task)


def _full_name(name: str, task: Task) -> str:
    several = len(task.evaluation_splits) > 1 and name in (*task.metrics, "loss")
    return f"{task.evaluation_splits[0]}_{name}" if several else name


def best_mistakes(run: RunTree) -> Iterator[Mistake]:
    """Yield the mistakes of the two keys, and between them and the keys about evaluating and saving."""
    if not (run.train.keep_best or run.train.early_stopping) or not task_name(run):
        return
    yield from _name_mistakes(run)
    yield from _schedule_mistakes(run)
    key = KEEP_BEST if run.train.keep_best else EARLY_STOPPING
    for name in (name for name in _TRAINER_WAY if name in run.trainer):
        text = f"{key} and trainer.{name}={run.trainer[name]!r} exclude each other: leave trainer.{name} out."
        yield Mistake(text, (key, f"trainer.{name}"))


def _name_mistakes(run: RunTree) -> Iterator[Mistake]:
    task, keep, stopping = task_of(run), run.train.keep_best, run.train.early_stopping
    known = tuple(dict.fromkeys((*task.metrics, "loss", *best_metrics(run))))
    asked = {KEEP_BEST: keep, EARLY_STOPPING: stopping.metric if stopping else ""}
    for key, name in asked.items():
        if name and name not in known:
            text = f"{key} names {name!r}, which evaluations do not compute: {did_you_mean(name, known)}, or add it to "
            yield Mistake(text + "task.metrics.", (key,))
    names = {_full_name(name, task) for name in asked.values() if name}
    if len(names) > 1:
        text = f"train.keep_best={keep!r} and train.early_stopping name two metrics, {' and '.join(sorted(names))}: "
        yield Mistake(text + "a run has one best evaluation, so name the same metric.", (KEEP_BEST, EARLY_STOPPING))


def _schedule_mistakes(run: RunTree) -> Iterator[Mistake]:
    train = run.train
    key = KEEP_BEST if train.keep_best else EARLY_STOPPING
    if train.eval_every == "never":
        text = f"{key} needs evaluations, but train.eval_every='never': write \"epoch\" or a number of steps."
        yield Mistake(text, (key, "train.eval_every"))
    elif not task_of(run).evaluation_splits:
        text = (
            f"{key} needs evaluations, but the source has no evaluation split: name a validation file in data.source."
        )
        yield Mistake(text, (key, "data.source"))
    elif train.keep_best and train.save_every not in ("never", train.eval_every):
        text = (
            f"train.keep_best={train.keep_best!r} needs a checkpoint of each evaluation that may be the best, but "
            f"train.eval_every={train.eval_every!r} and train.save_every={train.save_every!r}: write one for both, "
            'or save_every = "never" for checkpoints of the best evaluations alone.'
        )
        yield Mistake(text, (KEEP_BEST, "train.eval_every", "train.save_every"))
