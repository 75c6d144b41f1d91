"""A row for each argument of transformers' TrainingArguments: a value, and what is not the same under ours, and why."""

from collections.abc import Mapping
from typing import Any

from ftsys.train.trainer.arguments import RECOMPUTATION
from tests.parity.trainer.sides import Row, accuracy

NO_PICKLE = "our checkpoints hold JSON and safetensors in place of the stock pickles"
LOSS_SCALE = "the stock Trainer multiplies loss and gradient by ranks x accumulation (transformers 47688)"
ALL_ROWS = "every row is evaluated, the last batch too"
NO_PADDING = "a packed batch has no padding to count"
GROUPING = "the stock sampler is unseeded, and predict comes back in its order: here it is the data's"
SKIPPED = "a step that is not finite changes no weight and no rate, and is counted in the log"
OWN_LOSSES = "each row has its own loss, not its batch's mean"

EVERY_EPOCH = {"eval_strategy": "epoch", "save_strategy": "epoch", "max_steps": -1, "num_train_epochs": 2}
SAVING = {"save_strategy": "steps", "save_steps": 1}
WILD = {"learning_rate": 1e30}


def batch_metrics(found: Any, compute_result: bool) -> dict[str, float]:
    return accuracy(found)


def with_options(settings: Mapping[str, Any], **options: Any) -> Row:
    return Row(settings, options=lambda: options, packed=False)


def saved(**settings: Any) -> Row:
    return Row(SAVING | settings, differs={"files": NO_PICKLE})


ROWS: dict[str, Row] = {
    "accelerator_config": Row({"accelerator_config": {"even_batches": False}}),
    RECOMPUTATION: Row({RECOMPUTATION: True}),
    f"{RECOMPUTATION}_kwargs": Row({RECOMPUTATION: True, f"{RECOMPUTATION}_kwargs": {"use_reentrant": False}}),
    "adam_beta1": Row({"adam_beta1": 0.5}),
    "adam_beta2": Row({"adam_beta2": 0.5}),
    "adam_epsilon": Row({"adam_epsilon": 1e-2}),
    "auto_find_batch_size": Row({"auto_find_batch_size": True}, packed=False),
    "average_tokens_across_devices": Row({"average_tokens_across_devices": False}),
    "batch_eval_metrics": with_options(
        {"batch_eval_metrics": True, "eval_strategy": "steps"}, compute_metrics=batch_metrics
    ),
    "bf16": Row({"bf16": True}, tolerance=0.05),
    "bf16_full_eval": Row({"bf16_full_eval": True}, tolerance=0.02),
    "data_seed": Row({"data_seed": 7}),
    "dataloader_drop_last": Row(
        {"dataloader_drop_last": True, "max_steps": -1, "num_train_epochs": 1, "per_device_train_batch_size": 5},
        differs=dict.fromkeys(("label_ids", "predictions", "test_metrics"), ALL_ROWS),
    ),
    "dataloader_in_order": Row({"dataloader_in_order": False}),
    "dataloader_multiprocessing_context": Row(
        {"dataloader_multiprocessing_context": "fork", "dataloader_num_workers": 1}
    ),
    "dataloader_num_workers": Row({"dataloader_num_workers": 1}),
    "dataloader_persistent_workers": Row({"dataloader_persistent_workers": True, "dataloader_num_workers": 1}),
    "dataloader_pin_memory": Row({"dataloader_pin_memory": False}),
    "dataloader_prefetch_factor": Row({"dataloader_prefetch_factor": 1, "dataloader_num_workers": 1}),
    "ddp_backend": Row({"ddp_backend": "gloo"}, packed=False),  # an error of both: there is no process group
    "ddp_broadcast_buffers": Row({"ddp_broadcast_buffers": True}),
    "ddp_bucket_cap_mb": Row({"ddp_bucket_cap_mb": 1}),
    "ddp_find_unused_parameters": Row({"ddp_find_unused_parameters": False}),
    "ddp_static_graph": Row({"ddp_static_graph": False}),
    "ddp_timeout": Row({"ddp_timeout": 100}),
    "debug": Row(
        {"debug": "underflow_overflow"},
        stock_fails='"abs_cpu" not implemented',  # for the mask, which packing has not
    ),
    "disable_tqdm": Row({"disable_tqdm": False}),
    "do_eval": Row({"do_eval": True}),
    "do_predict": Row({"do_predict": True}),
    "do_train": Row({"do_train": True}),
    "enable_jit_checkpoint": Row({"enable_jit_checkpoint": True}),
    "eval_accumulation_steps": Row({"eval_accumulation_steps": 1}),
    "eval_delay": Row({"eval_strategy": "steps", "eval_delay": 2}),
    "eval_do_concat_batches": with_options({"eval_do_concat_batches": False}, compute_metrics=None),
    "eval_on_start": Row({"eval_on_start": True}),
    "eval_steps": Row({"eval_strategy": "steps", "eval_steps": 2}),
    "eval_strategy": Row({"eval_strategy": "epoch", "max_steps": 6}),
    "eval_use_gather_object": Row({"eval_use_gather_object": True}),
    "fp16": Row({"fp16": True}, tolerance=0.02),
    "fp16_full_eval": Row({"fp16_full_eval": True}, tolerance=0.02, differs={"predictions": "float32, as in training"}),
    "fsdp": Row({"fsdp": True}, packed=False),
    "fsdp_config": Row({"fsdp_config": {"min_num_params": 10}}),
    "full_determinism": Row({"full_determinism": True}),
    "gradient_accumulation_steps": Row(
        {"gradient_accumulation_steps": 2},
        differs=dict.fromkeys(("losses", "norms", "predictions", "test_metrics", "training_loss"), LOSS_SCALE)
        | {"events": "a step is one item of the loop: there are no substeps"}
        | {"logged": "the share of an epoch that is done is counted in steps, not in batches"},
    ),
    "gradient_checkpointing": Row({"gradient_checkpointing": True}),
    "gradient_checkpointing_kwargs": Row(
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}
    ),
    "greater_is_better": Row(EVERY_EPOCH | {"greater_is_better": True, "load_best_model_at_end": True}),
    "hub_always_push": Row({"hub_always_push": True}),
    "hub_model_id": Row({"hub_model_id": "someone/model"}),
    "hub_private_repo": Row({"hub_private_repo": True}),
    "hub_revision": Row({"hub_revision": "branch"}),
    "hub_strategy": Row({"hub_strategy": "end"}),
    "hub_token": Row({"hub_token": "word"}),
    "ignore_data_skip": Row({"ignore_data_skip": True}),
    "include_for_metrics": Row({"include_for_metrics": ["inputs", "loss"]}, packed=False),
    "include_num_input_tokens_seen": Row({"include_num_input_tokens_seen": "non_padding"}),
    "label_names": Row({"label_names": ["labels"]}),
    "label_smoothing_factor": Row({"label_smoothing_factor": 0.2, "eval_strategy": "steps"}),
    "learning_rate": Row({"learning_rate": 1e-3}),
    "length_column_name": Row({"length_column_name": "size"}),
    "liger_kernel_config": Row({"liger_kernel_config": {}}),
    "load_best_model_at_end": Row(EVERY_EPOCH | {"load_best_model_at_end": True}),
    "local_rank": Row({"local_rank": -1}),
    "log_level": Row({"log_level": "error"}),
    "log_level_replica": Row({"log_level_replica": "error"}),
    "log_on_each_node": Row({"log_on_each_node": False}),
    "logging_first_step": Row({"logging_first_step": True, "logging_steps": 2}),
    "logging_nan_inf_filter": Row({"logging_nan_inf_filter": False}),
    "logging_steps": Row({"logging_steps": 2}),
    "logging_strategy": Row({"logging_strategy": "epoch"}),
    "lr_scheduler_kwargs": Row({"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 2}}),
    "lr_scheduler_type": Row({"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps"}),
    "max_grad_norm": Row({"max_grad_norm": 0.01}),
    "max_steps": Row({"max_steps": 7}),
    "metric_for_best_model": Row(EVERY_EPOCH | {"metric_for_best_model": "accuracy", "load_best_model_at_end": True}),
    "neftune_noise_alpha": Row({"neftune_noise_alpha": 5.0}, packed=False),
    "num_train_epochs": Row({"max_steps": -1, "num_train_epochs": 1.5}),
    "optim": Row({"optim": "adafactor"}),
    "optim_args": Row({"optim": "sgd", "optim_args": "momentum=0.9"}),
    "optim_target_modules": Row({"optim_target_modules": ["attention"]}),
    "output_dir": saved(),
    "per_device_eval_batch_size": Row({"per_device_eval_batch_size": 3, "eval_strategy": "steps"}),
    "per_device_train_batch_size": Row({"per_device_train_batch_size": 5}),
    "prediction_loss_only": Row({"prediction_loss_only": True}),
    "project": Row({"project": "name"}),
    "push_to_hub": Row({"push_to_hub": True, "hub_token": "word"}, packed=False),
    "remove_unused_columns": Row({"remove_unused_columns": False}, packed=False),
    "report_to": Row({"report_to": "tensorboard"}),
    "restore_callback_states_from_checkpoint": Row({"restore_callback_states_from_checkpoint": True}),
    "resume_from_checkpoint": Row({"resume_from_checkpoint": "scripts read it"}),
    "run_name": Row({"run_name": "name"}),
    "save_on_each_node": Row(SAVING | {"save_on_each_node": True}),
    "save_only_model": saved(save_only_model=True),
    "save_steps": saved(save_steps=2),
    "save_strategy": Row(EVERY_EPOCH | {"save_strategy": "best", "metric_for_best_model": "loss"}),
    "save_total_limit": saved(save_total_limit=2, max_steps=5),
    "seed": Row({"seed": 7}),
    "skip_memory_metrics": Row({"skip_memory_metrics": False}),
    "tf32": Row({"tf32": False}),
    "torch_empty_cache_steps": Row({"torch_empty_cache_steps": 1}),
    "trackio_bucket_id": Row({"trackio_bucket_id": "name"}),
    "trackio_space_id": Row({"trackio_space_id": "name"}),
    "trackio_static_space_id": Row({"trackio_static_space_id": "name"}),
    "train_sampling_strategy": Row({"train_sampling_strategy": "sequential"}),
    "use_cache": Row({"use_cache": True}),
    "use_cpu": Row(),
    "use_liger_kernel": Row({"use_liger_kernel": True}, packed=False),
    "warmup_steps": Row({"warmup_steps": 0.5}),
    "weight_decay": Row({"weight_decay": 0.5}),
}
for _name in ("greater_is_better", "load_best_model_at_end", "metric_for_best_model", "save_strategy"):
    ROWS[_name] = Row(ROWS[_name].settings, differs={"files": NO_PICKLE})

MORE_VALUES: dict[str, Row] = {
    "eval_strategy steps": Row({"eval_strategy": "steps"}),
    "include_for_metrics loss": Row({"include_for_metrics": ["loss"]}),
    "include_num_input_tokens_seen all": Row({"include_num_input_tokens_seen": "all"}, differs={"tokens": NO_PADDING}),
    "learning_rate beyond all bounds": Row(WILD, differs=dict.fromkeys(("logged", "rates"), SKIPPED)),
    "logging_nan_inf_filter in need": Row(
        WILD | {"logging_nan_inf_filter": False}, differs=dict.fromkeys(("logged", "rates"), SKIPPED)
    ),
    "train_sampling_strategy group_by_length": Row(
        {"train_sampling_strategy": "group_by_length"},
        differs=dict.fromkeys(
            ("losses", "norms", "training_loss", "predictions", "label_ids", "test_metrics"), GROUPING
        ),
    ),
    "train_sampling_strategy batch_rebalance": Row({"train_sampling_strategy": "batch_rebalance"}),
    "warmup_ratio": Row({"lr_scheduler_type": "linear", "warmup_steps": 2}),
}

ELSEWHERE: dict[str, str] = {
    "deepspeed": "needs a launcher: tests/distributed",
    "parallelism_config": "needs a mesh of devices; ours leaves it to transformers: test_fast_path",
    "torch_compile": "takes minutes to compile; ours leaves it to transformers: test_fast_path",
    "torch_compile_backend": "as torch_compile, which it switches on",
    "torch_compile_mode": "as torch_compile, which it switches on",
}
"""Arguments that no row of this table can try, and where they are tried."""
