"""Checks the keys that keep the best model or end a run early, and names the metric that decides which is the best."""

from collections.abc import Iterator

from ftsys.config.fields import Mistake
from ftsys.config.schema import RunTree
from ftsys.config.task_checks import task_name, task_of
from ftsys.config.trainer_fields import best_metrics
from ftsys.did_you_mean import did_you_mean
from ftsys.tasks import Task

_TRAINER_WAY = ("load_best_model_at_end", "metric_for_best_model", "greater_is_better")
KEEP_BEST, EARLY_STOPPING = "train.keep_best", "train.early_stopping"
TRAINER_BEST = "trainer.load_best_model_at_end"


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
    """Yield the mistakes of the three keys, and between them and the keys about evaluating and saving."""
    key = _asking(run)
    if not key or not task_name(run):
        return
    yield from _name_mistakes(run)
    yield from _schedule_mistakes(run, key)
    if key == TRAINER_BEST:
        return
    for name in (name for name in _TRAINER_WAY if name in run.trainer):
        text = f"{key} and trainer.{name}={run.trainer[name]!r} exclude each other: leave trainer.{name} out."
        yield Mistake(text, (key, f"trainer.{name}"))


def _asking(run: RunTree) -> str:
    """Return the first of the three keys that is set; empty where none is."""
    if run.train.keep_best:
        return KEEP_BEST
    if run.train.early_stopping:
        return EARLY_STOPPING
    return TRAINER_BEST if run.trainer.get("load_best_model_at_end") is True else ""


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


def _schedule_mistakes(run: RunTree, key: str) -> Iterator[Mistake]:
    train = run.train
    if train.eval_every == "never":
        text = f"{key} needs evaluations, but train.eval_every='never': write \"epoch\" or a number of steps."
        yield Mistake(text, (key, "train.eval_every"))
    elif not task_of(run).evaluation_splits:
        text = (
            f"{key} needs evaluations, but the source has no evaluation split: name a validation file in data.source."
        )
        yield Mistake(text, (key, "data.source"))
    elif key != EARLY_STOPPING and not _saves_each_evaluation(run, key):
        value, never = (train.keep_best, "") if key == KEEP_BEST else (True, "train.keep_best and ")
        text = (
            f"{key}={value!r} needs a checkpoint of each evaluation that may be the best, but "
            f"train.eval_every={train.eval_every!r} and train.save_every={train.save_every!r}: write one for both, "
            f'or {never}save_every = "never" for checkpoints of the best evaluations alone.'
        )
        yield Mistake(text, (key, "train.eval_every", "train.save_every"))


def _saves_each_evaluation(run: RunTree, key: str) -> bool:
    """Return True where the best evaluation has a checkpoint; with train.keep_best it has one of its own if need be."""
    own = key == KEEP_BEST and run.train.save_every == "never"
    return own or run.train.save_every == run.train.eval_every
