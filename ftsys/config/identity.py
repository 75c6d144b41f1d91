"""Computes a run's identity: two starts with the same identity are attempts of the same run."""

from typing import Any

from ftsys.config.old_words import identity_in_old_words
from ftsys.config.run_config import RunConfig
from ftsys.config.schema import TrainSection
from ftsys.config.task_checks import task_of
from ftsys.files.integrity import fingerprint_of

_WITHOUT_EFFECT = ("resume", "watchdog_seconds", "max_nonfinite_steps", "save_every", "save_keep")
_ADDED_LATER = ("class_weights", "layer_decay", "dropout", "freeze", "keep_best", "early_stopping")
"""Keys of [train] that count only if they are set: runs of versions without them keep their identity."""

RESULT_TRAINER_FIELDS = (
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "eval_delay",
    "greater_is_better",
    "label_smoothing_factor",
    "load_best_model_at_end",
    "lr_scheduler_kwargs",
    "lr_scheduler_type",
    "max_grad_norm",
    "metric_for_best_model",
    "neftune_noise_alpha",
    "optim",
    "optim_args",
    "optim_target_modules",
    "warmup_steps",
    "weight_decay",
)
"""Fields of [trainer] that affect the weights, or which of them are kept. The others report, log or load, and may
change between attempts."""


def identity_parts(run: RunConfig) -> dict[str, Any]:
    """Collect the values that determine a run's results: task, data, model, batch, train and seed, as plain JSON.

    Values that change no result are left out: the store's folder, the micro-batch, the launch, the engine, and those
    keys of [train] that are about saving, resuming and the watchdog.
    """
    train, default = run.train.model_dump(), TrainSection()
    left_out = {*_WITHOUT_EFFECT, *(key for key in _ADDED_LATER if getattr(run.train, key) == getattr(default, key))}
    return {
        "task": task_of(run).as_facts(),
        "data": {"source": run.data.source, "max_length": run.data.max_length} | _cut(run),
        "model": run.model.name,
        **({} if run.model.head == "auto" else {"head": run.model.head}),
        **({"trust_remote_code": True} if run.model.trust_remote_code else {}),
        "batch": run.batch.model_dump(exclude={"micro_tokens"}),
        "train": {key: value for key, value in train.items() if key not in left_out},
        **({} if run.lora.r is None else {"lora": run.lora.model_dump(mode="json", exclude={"merge"})}),
        "trainer": {key: run.trainer[key] for key in RESULT_TRAINER_FIELDS if key in run.trainer},
    }


def _cut(run: RunConfig) -> dict[str, Any]:
    """Return first_rows and quoting if they are set: older runs, which had no such keys, keep their identity."""
    quoting = {} if run.data.quoting == "auto" else {"quoting": run.data.quoting}
    return ({"first_rows": run.data.first_rows} if run.data.first_rows else {}) | quoting


def run_identity(run: RunConfig) -> str:
    """Return the sha256 of `identity_parts` as canonical JSON, with the names that the first version used."""
    return fingerprint_of(identity_in_old_words(identity_parts(run)))
