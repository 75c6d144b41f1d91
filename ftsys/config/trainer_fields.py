"""Checks [trainer]: TrainingArguments fields that belong to other sections, unknown ones, and values of wrong types."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ftsys.config.fields import Mistake, told
from ftsys.config.schema import RunTree
from ftsys.config.task_checks import task_name, task_of
from ftsys.config.trainer_known import HONOURED_TRAINER_FIELDS
from ftsys.did_you_mean import nearest

_EVALUATION = "train.eval_every"
_SAVING = "train.save_every"
_BATCH = "batch.global_size"
_MICRO = "batch.micro_tokens"
_PRECISION = "engine.precision"
_RECOMPUTED = "engine.activation_checkpointing"

OWNED_TRAINER_FIELDS: dict[str, str] = {
    "output_dir": "output_dir",
    "learning_rate": "train.learning_rate",
    "num_train_epochs": "train.epochs",
    "max_steps": "train.max_steps",
    "layer_decay": "train.layer_decay",
    "seed": "train.seed",
    "data_seed": "train.seed",
    "per_device_train_batch_size": _BATCH,
    "per_device_eval_batch_size": _MICRO,
    "per_gpu_train_batch_size": _BATCH,
    "per_gpu_eval_batch_size": _MICRO,
    "gradient_accumulation_steps": _MICRO,
    "eval_accumulation_steps": _MICRO,
    "auto_find_batch_size": _MICRO,
    "group_by_length": "batch.order",
    "train_sampling_strategy": "batch.order",
    "length_column_name": "batch.order",
    "dataloader_drop_last": _BATCH,
    "bf16": _PRECISION,
    "fp16": _PRECISION,
    "bf16_full_eval": _PRECISION,
    "fp16_full_eval": _PRECISION,
    "activation_checkpointing": _RECOMPUTED,
    "activation_checkpointing_kwargs": _RECOMPUTED,
    "gradient_checkpointing": _RECOMPUTED,
    "gradient_checkpointing_kwargs": _RECOMPUTED,
    "deepspeed": "engine.deepspeed",
    "fsdp": "engine.backend",
    "fsdp_config": "engine.backend",
    "parallelism_config": "engine.backend",
    "ddp_backend": "engine.backend",
    "torch_compile": "engine.compile",
    "torch_compile_backend": "engine.compile",
    "torch_compile_mode": "engine.compile",
    "eval_strategy": _EVALUATION,
    "evaluation_strategy": _EVALUATION,
    "eval_steps": _EVALUATION,
    "save_strategy": _SAVING,
    "save_steps": _SAVING,
    "save_total_limit": "train.save_keep",
    "resume_from_checkpoint": "train.resume",
    "ignore_data_skip": "train.resume",
    "global_batch_size": _BATCH,
    "global_batch_tokens": "batch.global_tokens",
    "batch_order": "batch.order",
    "micro_tokens": _MICRO,
    "kernels": "engine.kernels",
    "use_liger_kernel": "engine.kernels",
    "liger_kernel_config": "engine.kernels",
}
"""Fields of TrainingArguments that another section sets, with the key to write instead."""

_COMMAND = "the command decides it: `ftsys train`, `ftsys evaluate` or `ftsys predict`"
_BATCHES = "the run's own plan makes the batches and shares them out among the ranks"
_NO_WORKERS = "a store is read from memory-mapped files, without workers"
_ALL_ROWS = "metrics are computed from the predictions and labels of all rows at once"
_DEVICE = "the device is a GPU where one is seen: `ftlaunch run --cpu`, or set CUDA_VISIBLE_DEVICES= before the command"
_UPLOAD = "upload the result afterwards: hf upload NAME RUN_DIR/model"

REFUSED_TRAINER_FIELDS: dict[str, str] = {
    "accelerator_config": _BATCHES,
    "average_tokens_across_devices": "a step's loss is the mean over its examples, for any number of ranks",
    "batch_eval_metrics": _ALL_ROWS,
    "dataloader_in_order": _NO_WORKERS,
    "dataloader_multiprocessing_context": _NO_WORKERS,
    "dataloader_num_workers": _NO_WORKERS,
    "dataloader_persistent_workers": _NO_WORKERS,
    "dataloader_pin_memory": _NO_WORKERS,
    "dataloader_prefetch_factor": _NO_WORKERS,
    "disable_tqdm": "ftsys shows progress itself",
    "do_train": _COMMAND,
    "do_eval": _COMMAND,
    "do_predict": _COMMAND,
    "enable_jit_checkpoint": "a signal makes ftsys save and stop anyway",
    "eval_do_concat_batches": _ALL_ROWS,
    "eval_use_gather_object": _ALL_ROWS,
    "hub_always_push": _UPLOAD,
    "hub_model_id": _UPLOAD,
    "hub_private_repo": _UPLOAD,
    "hub_revision": _UPLOAD,
    "hub_strategy": _UPLOAD,
    "hub_token": _UPLOAD,
    "include_for_metrics": _ALL_ROWS,
    "label_names": "the labels of a batch are always called `labels`, for any task.label_column",
    "local_rank": "the launcher numbers the ranks",
    "logging_dir": "TensorBoard's files are in the run folder",
    "logging_nan_inf_filter": "a loss that is not finite is always shown",
    "no_cuda": _DEVICE,
    "overwrite_output_dir": "`--overwrite` on the command line starts a run from the beginning",
    "prediction_loss_only": _ALL_ROWS,
    "push_to_hub": _UPLOAD,
    "remove_unused_columns": "a store has none",
    "restore_callback_states_from_checkpoint": "the callbacks of a run are ftsys' own",
    "save_on_each_node": "all nodes share the run folder",
    "save_only_model": "a checkpoint holds all that a resume needs, and RUN_DIR/model the model alone",
    "save_stock_state": "the stock Trainer reads no run folder: it is an argument of scripts",
    "save_safetensors": "safetensors is the only format",
    "torch_empty_cache_steps": "batch.micro_tokens is chosen so that a step fits the device's memory",
    "use_cache": "a classifier generates no text",
    "use_cpu": _DEVICE,
    "warmup_ratio": "transformers 5 reads a trainer.warmup_steps below 1 as a fraction of all steps",
}
"""Fields that have no meaning in ftsys or that transformers 5 no longer has, with the reason."""

SECRET_TRAINER_FIELDS: dict[str, str] = {"hub_token": "HF_TOKEN"}
"""Fields that hold a secret, with the environment variable to use instead. A run writes [trainer] into its files."""

KNOWN_TRAINER_FIELDS = frozenset({*OWNED_TRAINER_FIELDS, *REFUSED_TRAINER_FIELDS, *HONOURED_TRAINER_FIELDS})
"""All fields of TrainingArguments."""

_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "lr_scheduler_type": ((str,), 'text, such as "linear"'),
    "max_grad_norm": ((int, float), "a number, 0 (no clipping) or above"),
    "label_smoothing_factor": ((int, float), "a number from 0 to 1"),
    "neftune_noise_alpha": ((int, float), "a number above 0, such as 5.0"),
    "optim": ((str,), 'text, such as "adamw_torch_fused"'),
    "warmup_steps": ((int, float), "a number of steps, or a fraction of all steps, below 1"),
    "weight_decay": ((int, float), "a number, 0 or above"),
}
"""Fields that are used, or have no other check, before transformers is imported and can check them."""
_WITHIN_BACKWARD = ("lomo", "adalomo")


def trainer_mistakes(run: RunTree) -> Iterator[Mistake]:
    """Yield a mistake for each field of [trainer] that is not allowed, has a wrong type, or does not fit the task.

    Imports no transformers.
    """
    for name, value in run.trainer.items():
        text = _trainer_mistake(name, value) or _task_mistake(run, name, value)
        if name in SECRET_TRAINER_FIELDS:
            yield Mistake(f"trainer.{name} {secret_advice(SECRET_TRAINER_FIELDS[name])}", (f"trainer.{name}",))
        elif text:
            yield Mistake(f"{told(f'trainer.{name}', value)} {text}.", (f"trainer.{name}",))


def secret_advice(variable: str) -> str:
    """Return the end of a message about a secret. Such a message never repeats the value."""
    return f"is a secret, and a run's files are readable: set the environment variable {variable} instead."


def best_metrics(run: RunTree) -> list[str]:
    """Return the names that trainer.metric_for_best_model may have: with several evaluation splits, one for each."""
    task = task_of(run)
    names = dict.fromkeys((*task.metrics, "loss"))
    several = len(task.evaluation_splits) > 1
    return [f"{split}_{name}" for split in task.evaluation_splits for name in names] if several else list(names)


def _task_mistake(run: RunTree, name: str, value: Any) -> str:
    if not task_name(run):
        return ""  # reported as the task's mistake
    if name == "metric_for_best_model":
        known = best_metrics(run)
        if str(value).removeprefix("eval_") not in known:
            return f"is not computed in evaluations: write one of {', '.join(known)}, or add it to task.metrics"
    kind = task_of(run).kind
    if name == "label_smoothing_factor" and value and kind != "class":
        what = "this task is a regression" if kind == "number" else "the labels of this task are no classes"
        return f"shares a label's weight among classes, and {what}: leave it out"
    return ""


def _trainer_mistake(name: str, value: Any) -> str:
    if name in OWNED_TRAINER_FIELDS:
        return f"is decided by another section: write {OWNED_TRAINER_FIELDS[name]} instead"
    if name in REFUSED_TRAINER_FIELDS:
        return f"has no use here ({REFUSED_TRAINER_FIELDS[name]}): leave it out"
    if name not in HONOURED_TRAINER_FIELDS:
        return f"is not a field of transformers' TrainingArguments: {_hint(name)}"
    if not _is_plain(value):
        return "is not a plain value: write text, a finite number, true, false, or a list or table of those"
    if name in _KINDS:
        kinds, write = _KINDS[name]
        fits = isinstance(value, kinds) and not isinstance(value, bool)
        if not fits or (not isinstance(value, str) and value < 0):
            return f"cannot be used: write {write}"
    if name == "optim" and (value in _WITHIN_BACKWARD or str(value).endswith("_layerwise")):
        return "updates weights within a backward pass, and a step may have several: write another optimizer"
    if (name, value) == ("neftune_noise_alpha", 0) or (name == "label_smoothing_factor" and value > 1):
        return f"cannot be used: write {_KINDS[name][1]}"
    return ""


def _hint(name: str) -> str:
    found = nearest(name, HONOURED_TRAINER_FIELDS)
    return f"did you mean trainer.{found}" if found else "leave it out"


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(_is_plain(inner) for inner in value)
    return isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))
