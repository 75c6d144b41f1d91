"""Creates ftsys' own Trainer for measurements, with the same plan, arguments and model as `ftsys train`."""

from pathlib import Path
from typing import Any

from ftsys.bench.harness.peers import Spec
from ftsys.config import RunConfig, build_run, resolve_task
from ftsys.data.store.reader import Store
from ftsys.models.packed import why_not_packable
from ftsys.train.planning import resolve_plan
from ftsys.train.setup import load_model, metrics_of, prediction_trainer, training_arguments
from ftsys.train.trainer.checkpointers.interface import Checkpointer
from ftsys.train.trainer.trainer import Trainer
from launcher.planner.model_shape import known_shape

TASK = "mrpc"
"""A task with two labels; the rows come from the store, whatever the task is."""


def our_trainer(
    spec: Spec, max_steps: int | None = None, epochs: int = 1, checkpointer: Checkpointer | None = None
) -> Trainer:
    """Create a Trainer on the store of `spec`; with a launcher's environment, the rank joins the process group."""
    store = Store.open(spec.store)
    run = _run(spec, store, {"max_steps": max_steps} if max_steps else {"epochs": float(epochs)})
    model, _ = load_model(Path(spec.model), resolve_task(run), run.train.seed)
    split, shape = store.splits["train"], known_shape(model.config.to_dict(), 2)
    plan = resolve_plan(run, split, packed=why_not_packable(model) is None, model=shape)
    arguments = training_arguments(run, plan, resolve_task(run))
    evaluated = store.splits["validation"] if run.train.eval_every != "never" else None
    metrics = metrics_of(resolve_task(run))
    return Trainer(
        model=model,
        args=arguments,
        train_dataset=split,
        eval_dataset=evaluated,
        compute_metrics=metrics,
        checkpointer=checkpointer,
    )


def our_predictor(spec: Spec) -> Trainer:
    """Create a Trainer that only predicts, as `ftsys predict` does."""
    store = Store.open(spec.store)
    run = _run(spec, store, {"max_steps": 1})
    model, _ = load_model(Path(spec.model), resolve_task(run), run.train.seed)
    return prediction_trainer(run, model, store, spec.work)


def _run(spec: Spec, store: Store, length: dict[str, Any]) -> RunConfig:
    evaluates = "epochs" in length and spec.evaluates
    size = {"global_tokens": spec.tokens} if spec.tokens else {"global_size": spec.examples}
    order = "length_grouped" if spec.recipe.length_grouped else "random"
    return build_run(
        {
            "output_dir": spec.work,
            "task": {"name": TASK},
            "data": {"max_length": store.tokenizer.max_length},
            "batch": {**size, "order": order},
            "train": {**length, "eval_every": "epoch" if evaluates else "never", "save_every": "never"},
            "engine": {"precision": spec.precision, "cuda_graphs": spec.recipe.cuda_graphs},
        }
    )
