"""Makes what a Trainer takes from a run and its plan: arguments, model, metrics. Every number comes from these two."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, EvalPrediction, PreTrainedModel, set_seed

from ftsys.config import EngineSection, RunConfig, best_metric
from ftsys.data.store.reader import Store
from ftsys.errors import ConfigError
from ftsys.metrics import METRICS, metrics_of_logits
from ftsys.model_files.config import PLAIN_OUTPUTS
from ftsys.model_files.load_errors import model_load_errors
from ftsys.model_files.remote_code import loading_code
from ftsys.model_files.untrained import made_up, refuse_untrained
from ftsys.model_files.values import dropouts
from ftsys.models.families import check_has_classifier
from ftsys.tasks import Kind, Task
from ftsys.train.head import fit_head
from ftsys.train.planning import rank_world
from ftsys.train.trainable.adapter_files import add_adapter_weights, base_folder, is_adapter, trained_whole
from ftsys.train.trainer.arguments import RECOMPUTATION, TrainingArguments
from ftsys.train.trainer.hooks import RunHooks
from ftsys.train.trainer.trainer import Trainer
from launcher.planner.deepspeed_config import deepspeed_config, merged_config, user_json_of
from launcher.planner.model_shape import not_recomputable
from launcher.planner.plan import Plan, make_plan

STEPS_BETWEEN_LOGS = 10
PROBLEM_TYPES: dict[Kind, str] = {
    "class": "single_label_classification",
    "number": "regression",
    "labels": "multi_label_classification",
}
"""transformers' names of the kinds of tasks, as config.json has them."""


def training_arguments(run: RunConfig, plan: Plan, task: Task) -> TrainingArguments:
    """Return the Trainer's arguments; making them also joins the process group.

    Raises:
        ConfigError: a value that transformers refuses.
    """
    return made_arguments(TrainingArguments, argument_values(run, plan, task))


def argument_values(run: RunConfig, plan: Plan, task: Task) -> dict[str, Any]:
    """Return the values of TrainingArguments: what the plan decides, and over it the fields of [trainer]."""
    defaults: dict[str, Any] = {"logging_steps": STEPS_BETWEEN_LOGS, "report_to": "none"}
    decided = _schedule(run) | _engine(run, plan) | _batch(plan)
    if task.evaluation_splits:
        best = best_metric(run)
        decided |= {"metric_for_best_model": best, "greater_is_better": _greater_is_better(best)}
        decided |= _keep_best(run)
    else:
        decided["eval_strategy"] = "no"  # a source of training rows alone: there is nothing to evaluate on
    return {"output_dir": run.output_dir, **defaults, **decided, **run.trainer}


def made_arguments(kind: type[TrainingArguments], values: dict[str, Any]) -> TrainingArguments:
    """Return arguments of class `kind`. Raises ConfigError for a value that transformers refuses."""
    try:
        return kind(**values)
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigError(f"transformers refuses the run's settings: {error}") from error


def _schedule(run: RunConfig) -> dict[str, Any]:
    train = run.train
    length = {"max_steps": train.max_steps} if train.max_steps is not None else {"num_train_epochs": train.epochs}
    return {
        **length,
        "learning_rate": train.learning_rate,
        "layer_decay": train.layer_decay,
        "seed": train.seed,
        "max_nonfinite_steps": train.max_nonfinite_steps,
        **_every("eval", train.eval_every),
        **_every("save", train.save_every),
        "save_total_limit": train.save_keep,
        # ftsys' own callbacks show the progress, and a store has no columns to remove.
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "logging_nan_inf_filter": False,
    }


def _every(what: str, interval: str | int) -> dict[str, Any]:
    if isinstance(interval, int):
        return {f"{what}_strategy": "steps", f"{what}_steps": interval}
    return {f"{what}_strategy": {"epoch": "epoch", "never": "no"}[interval]}


def _engine(run: RunConfig, plan: Plan) -> dict[str, Any]:
    on_cpu = plan.device == "cpu"
    engine: dict[str, Any] = {
        "use_cpu": on_cpu,
        "bf16": plan.precision == "bf16" and not _has_masters(plan),
        "master_weights": _has_masters(plan),
        "fp16": plan.precision == "fp16",
        "optim": plan.optimizer,
        "max_grad_norm": plan.max_grad_norm,
        "kernels": plan.kernels,
        "compile_regions": plan.compile,
        "cuda_graphs": plan.cuda_graphs,
        **_recomputation(plan),
    }
    if plan.backend == "deepspeed":
        engine["deepspeed"] = deepspeed_settings(run, plan)
    elif plan.ranks > 1:
        # Every weight of a sequence classifier takes part in its loss: searching unused ones costs a pass a step.
        engine["ddp_find_unused_parameters"] = False
        if on_cpu:
            engine["ddp_backend"] = "gloo"
    return engine


def _has_masters(plan: Plan) -> bool:
    """Return True where weights are bf16 with our own masters: DeepSpeed keeps its own, other optimizers have none."""
    return plan.precision == "bf16" and plan.backend != "deepspeed" and plan.optimizer.startswith("adamw_torch")


def _recomputation(plan: Plan) -> dict[str, Any]:
    # The reentrant kind runs a layer's hooks within its own backward pass, which DeepSpeed does not expect.
    return {RECOMPUTATION: plan.activation_checkpointing, f"{RECOMPUTATION}_kwargs": {"use_reentrant": False}}


def check_recomputable(model: PreTrainedModel, plan: Plan) -> None:
    """Raise ConfigError where the plan recomputes activations and transformers cannot do it for this model."""
    if plan.activation_checkpointing and not model.supports_gradient_checkpointing:
        raise ConfigError(not_recomputable(model.config.model_type))


def deepspeed_settings(run: RunConfig, plan: Plan) -> dict[str, Any]:
    """Return the generated settings, overridden by the user's own. Raises ConfigError with every conflict."""
    user_json = user_json_of(run)
    return deepspeed_config(plan, run) if user_json is None else merged_config(user_json, run, plan)


def _batch(plan: Plan) -> dict[str, Any]:
    return {
        # The Trainer and DeepSpeed count with these; our own plan assigns the examples.
        "per_device_train_batch_size": plan.largest_rank_examples or 1,
        "gradient_accumulation_steps": 1,
        "global_batch_size": plan.global_size,
        "global_batch_tokens": plan.global_tokens,
        "batch_order": plan.order,
        "micro_tokens": plan.micro_tokens,
    }


def _keep_best(run: RunConfig) -> dict[str, Any]:
    """Return the arguments of train.keep_best; without regular checkpoints each best evaluation is saved."""
    if not run.train.keep_best:
        return {}
    only_best = {"save_strategy": "best"} if run.train.save_every == "never" else {}
    return {"load_best_model_at_end": True, **only_best}


def _greater_is_better(name: str) -> bool:
    """Return the direction of a metric by its name, which may begin with "eval_" and a split's name; of a loss, False.

    The longest name of a metric at its end is meant: "macro_f1" is not "f1".
    """
    found = [metric for metric in METRICS if name == metric or name.endswith(f"_{metric}")]
    return bool(found) and METRICS[max(found, key=len)].greater_is_better


def load_model(
    folder: Path,
    task: Task,
    seed: int,
    head: str = "auto",
    trust_remote_code: bool = False,
    dropout: float | None = None,
) -> tuple[PreTrainedModel, list[str]]:
    """Return the pre-trained encoder with the task's head, in float32, and the names of freshly initialised weights.

    A new head's weights depend on `seed` alone, so every rank makes the same. `head` and
    `trust_remote_code` are those of the run file's section [model], `dropout` that of [train].

    Raises:
        ConfigError: the model's type has no sequence classifier, transformers cannot load the folder, its head was
            trained for other classes, or `dropout` is given for a model that has none.
    """
    model, fresh = _loaded(folder, task, seed, trust_remote_code, dropout)
    return model, fit_head(model, folder, task, head, list(fresh))


def load_trained(folder: Path, task: Task, trust_remote_code: bool = False) -> PreTrainedModel:
    """Return a trained model with the outputs of its head in the order of the task's classes, in float32.

    Raises ConfigError as `load_model` does, and where not all of its weights were trained.
    """
    model, fresh = _loaded(folder, task, 0, trust_remote_code, None)
    refuse_untrained(str(folder), model.base_model_prefix, fresh)
    fit_head(model, folder, task, "auto", [])
    return model


def _loaded(
    folder: Path, task: Task, seed: int, trust_remote_code: bool, dropout: float | None
) -> tuple[PreTrainedModel, dict[str, str]]:
    """Return a model with a head of the task's size, as its files have it, and the weights that were made up."""
    check_has_classifier(folder, trust_remote_code)
    set_seed(seed)
    names = dict(enumerate(task.labels)) if task.labels else {0: "score"}
    weights = base_folder(folder) if is_adapter(folder) else folder
    with model_load_errors(weights), loading_code(trust_remote_code):
        model, info = AutoModelForSequenceClassification.from_pretrained(
            weights,
            num_labels=task.num_outputs,
            id2label=names,
            label2id={name: index for index, name in names.items()},
            problem_type=PROBLEM_TYPES[task.kind],
            dtype=torch.float32,
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
            ignore_mismatched_sizes=True,
            **PLAIN_OUTPUTS,
            **_dropouts(weights, dropout, trust_remote_code),
        )
    _refuse_without_weights(weights, model, set(info["missing_keys"]))
    if weights == folder:
        return model, made_up(info)
    add_adapter_weights(model, folder)
    return model, made_up(info, trained_whole(folder))


def _dropouts(folder: Path, dropout: float | None, trust_remote_code: bool) -> dict[str, float]:
    """Return the values of a model's configuration that set all of its dropout. Raises ConfigError if it has none."""
    if dropout is None:
        return {}
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code).to_dict()
    found = dropouts(config, dropout)
    if not found:
        raise ConfigError(f"train.dropout={dropout}: {config['model_type']!r} models have no dropout. Remove the key.")
    return found


def _refuse_without_weights(folder: Path, model: PreTrainedModel, missing: set[str]) -> None:
    """Raise ConfigError if the folder has no weight of the encoder: training would start from random numbers."""
    encoder = {name for name, _ in model.named_parameters() if name.startswith(f"{model.base_model_prefix}.")}
    if encoder and encoder <= missing:
        raise ConfigError(
            f"{str(folder)!r}: its weights hold none of the encoder's {len(encoder)} parameters, such as "
            f"{min(encoder)!r}. They are of another model, or have other names: save the model with transformers."
        )


def metrics_of(task: Task) -> Callable[[EvalPrediction], dict[str, float]]:
    """Return the function that the Trainer calls with all logits and labels of a split, on rank 0."""

    def compute_metrics(found: EvalPrediction) -> dict[str, float]:
        return metrics_of_logits(task, found.predictions, found.label_ids)

    return compute_metrics


def prediction_trainer(
    run: RunConfig, model: PreTrainedModel, store: Store, scratch: str, hooks: RunHooks | None = None
) -> Trainer:
    """Return a Trainer that only predicts: no engine, no optimizer. It writes nothing to its folder, `scratch`."""
    world = rank_world()
    plan = make_plan(run.model_copy(update={"engine": _without_zero(run)}), world, packed=True)
    arguments = TrainingArguments(
        output_dir=scratch,
        use_cpu=plan.device == "cpu",
        fp16=plan.precision == "fp16",
        kernels=plan.kernels,
        micro_tokens=plan.micro_tokens,
        ddp_backend="gloo" if plan.device == "cpu" and world.ranks > 1 else None,
        report_to="none",
        disable_tqdm=True,
    )
    if plan.precision == "bf16":
        model.to(torch.bfloat16)  # as in the evaluations while it was trained
    return Trainer(model=model, args=arguments, eval_dataset=next(iter(store.splits.values())), hooks=hooks)


def _without_zero(run: RunConfig) -> EngineSection:
    return run.engine.model_copy(update={"zero_stage": 0, "offload": "none", "backend": "auto", "deepspeed": ""})
