"""Lists the example script's flags: their keys in a run file, those without effect, and the values that are refused."""

from typing import Any

from ftsys.config.trainer_fields import REFUSED_TRAINER_FIELDS
from ftsys.tasks import GLUE

TASKS = tuple(name for name in GLUE if name != "ax")
"""The script's tasks: AX has no training split."""

RUN_FILE_KEYS = {
    "model_name_or_path": "model.name",
    "head": "model.head",
    "trust_remote_code": "model.trust_remote_code",
    "max_seq_length": "data.max_length",
    "quoting": "data.quoting",
    "learning_rate": "train.learning_rate",
    "layer_decay": "train.layer_decay",
    "seed": "train.seed",
    "save_total_limit": "train.save_keep",
    "max_nonfinite_steps": "train.max_nonfinite_steps",
    "global_batch_tokens": "batch.global_tokens",
    "batch_order": "batch.order",
    "micro_tokens": "batch.micro_tokens",
    "activation_checkpointing": "engine.activation_checkpointing",
    "gradient_checkpointing": "engine.activation_checkpointing",
    "kernels": "engine.kernels",
    "torch_compile": "engine.compile",
    "compile_regions": "engine.compile",
    "cuda_graphs": "engine.cuda_graphs",
}
"""Flags whose value becomes the value of a run file's key."""

SECRETS = ("hub_token", "token")
"""Flags that hold a secret. They are refused without repeating it."""

_BY_TOKENS = "evaluation packs batch.micro_tokens tokens into a batch"

_OF_TRAINER = (
    *("average_tokens_across_devices", "dataloader_in_order", "dataloader_multiprocessing_context"),
    *("dataloader_num_workers", "dataloader_persistent_workers", "dataloader_pin_memory", "dataloader_prefetch_factor"),
    *("disable_tqdm", "enable_jit_checkpoint", "logging_nan_inf_filter"),
)
"""Flags that [trainer] of a run file refuses for the same reason."""

WITHOUT_EFFECT = {
    **{name: REFUSED_TRAINER_FIELDS[name] for name in _OF_TRAINER},
    "auto_find_batch_size": "the micro-batch is counted in tokens and follows from the device's memory",
    "bf16_full_eval": "evaluation computes in the format of training",
    "ddp_backend": "nccl or gloo follows from the device",
    "eval_accumulation_steps": _BY_TOKENS,
    "eval_use_gather_object": _BY_TOKENS,
    "fp16_full_eval": "evaluation computes in the format of training",
    "hub_strategy": "nothing is uploaded",
    "ignore_mismatched_sizes": "a head of another size is always newly initialized",
    "overwrite_cache": "a store belongs to its text and is never stale",
    "pad_to_max_length": "batches are packed, no padding is computed",
    "per_device_eval_batch_size": _BY_TOKENS,
    "remove_unused_columns": "a store has none",
    "save_on_each_node": "all nodes share the run folder",
    "torch_empty_cache_steps": "the micro-batch is counted in tokens and follows from the device's memory",
    "use_cache": "a classifier generates no text",
}
"""Flags that are accepted and ignored, with the reason. None of them changes a result in the script either."""

_FSDP = "ranks are joined by DDP or DeepSpeed; write --deepspeed FILE to split a model"
_PUSH = "upload afterwards: hf upload NAME RUN_DIR/model"
_COMPILE = "engine.compile takes no further choice"

ALLOWED_VALUES: dict[str, tuple[tuple[Any, ...], str]] = {
    "accelerator_config": ((None, "", {}), "the run's own plan makes the batches"),
    "batch_eval_metrics": ((False,), "metrics are computed from all rows at once"),
    "cache_dir": ((None,), "set the environment variable HF_HUB_CACHE"),
    "dataloader_drop_last": ((False,), "every example is seen once an epoch"),
    "eval_do_concat_batches": ((True,), "metrics are computed from all rows at once"),
    "fsdp": ((None, "", False, [], {}), _FSDP),
    "fsdp_config": ((None, {}), _FSDP),
    "gradient_checkpointing_kwargs": ((None, {"use_reentrant": False}), "use_reentrant is always False"),
    "activation_checkpointing_kwargs": ((None, {"use_reentrant": False}), "use_reentrant is always False"),
    "hub_always_push": ((False,), _PUSH),
    "hub_model_id": ((None,), _PUSH),
    "hub_private_repo": ((None, False), _PUSH),
    "hub_revision": ((None,), _PUSH),
    "hub_token": ((None,), _PUSH),
    "ignore_data_skip": ((False,), "a resumed run continues with the examples that it has not seen yet"),
    "include_for_metrics": ((None, []), "the task's metrics take predictions and labels"),
    "label_names": ((None, ["labels"], ["label"]), "the label's column is named label"),
    "length_column_name": ((None, "length"), "a store knows its lengths"),
    "liger_kernel_config": ((None, {}), "--kernels chooses the kernels"),
    "master_weights": ((False,), "--bf16 decides it"),
    "model_revision": (("main", None), "download that revision, and give its folder as --model_name_or_path"),
    "packing": ((True,), "batches are packed wherever the model can take them"),
    "parallelism_config": ((None,), _FSDP),
    "prediction_loss_only": ((False,), "metrics are computed from predictions"),
    "push_to_hub": ((False,), _PUSH),
    "restore_callback_states_from_checkpoint": ((False,), "the callbacks of a run are its own"),
    "save_only_model": ((False,), "a checkpoint holds all that a resume needs"),
    "save_stock_state": ((False,), "checkpoints of a run are in ftsys' own format alone"),
    "save_strategy": (("no", "steps", "epoch"), 'write "steps" or "epoch"; the best checkpoint is kept anyway'),
    "token": ((None,), "set the environment variable HF_TOKEN"),
    "torch_compile_backend": ((None,), _COMPILE),
    "torch_compile_mode": ((None,), _COMPILE),
    "train_sampling_strategy": (("random", "group_by_length"), "examples are taken in random order, or by length"),
    "use_fast_tokenizer": ((True,), "the tokenizers library is the only one"),
    "use_liger_kernel": ((False,), "--kernels chooses the kernels"),
    "use_legacy_prediction_loop": ((False,), "there is one evaluation loop"),
}
"""Flags of which only some values are supported, with the reason or the advice for all other values."""
