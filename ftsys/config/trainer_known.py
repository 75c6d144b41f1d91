"""Lists the fields of TrainingArguments that [trainer] passes on, so that a misspelt one is found without transformers.

Together with `OWNED_TRAINER_FIELDS` and `REFUSED_TRAINER_FIELDS` these are all fields of transformers. A test compares
them with the installed version: a field of a newer version has to be put into one of the three tables first.
"""

_OPTIMIZER = "the optimizer; under DeepSpeed its generated file"
_SCHEDULE = "the learning rate of each step"
_LOG = "transformers' own log"
_LINES = "the lines of metrics.jsonl"
_BEST = "the checkpoint that is kept as the best"
_DDP = "torch's DDP, where ranks are joined by it"
_TRACKER = "the trackers of report_to"

HONOURED_TRAINER_FIELDS: dict[str, str] = {
    **dict.fromkeys(("adam_beta1", "adam_beta2", "adam_epsilon", "optim", "optim_args"), _OPTIMIZER),
    **dict.fromkeys(("optim_target_modules", "weight_decay", "max_grad_norm"), _OPTIMIZER),
    **dict.fromkeys(("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps"), _SCHEDULE),
    **dict.fromkeys(("log_level", "log_level_replica", "log_on_each_node"), _LOG),
    **dict.fromkeys(("logging_first_step", "logging_steps", "logging_strategy"), _LINES),
    **dict.fromkeys(("load_best_model_at_end", "metric_for_best_model", "greater_is_better"), _BEST),
    **dict.fromkeys(("ddp_broadcast_buffers", "ddp_bucket_cap_mb", "ddp_find_unused_parameters"), _DDP),
    **dict.fromkeys(("ddp_static_graph", "ddp_timeout"), _DDP),
    **dict.fromkeys(("report_to", "run_name", "project", "trackio_bucket_id", "trackio_space_id"), _TRACKER),
    "trackio_static_space_id": _TRACKER,
    "debug": "transformers' search for numbers that are not finite",
    "eval_delay": "the first evaluation",
    "eval_on_start": "an evaluation before the first step",
    "full_determinism": "torch's deterministic algorithms",
    "include_num_input_tokens_seen": "a count of real tokens in metrics.jsonl",
    "label_smoothing_factor": "the training loss; evaluations report the loss without it",
    "neftune_noise_alpha": "noise on the embeddings: by each sequence's own length where batches are packed, by the "
    "padded length where they are padded",
    "skip_memory_metrics": "transformers' memory figures in the log",
    "tf32": "torch's matrix products on a GPU",
}
"""By the field: what it acts on."""
