"""What makes two starts the same run."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

from ftsys.config.old_words import identity_in_old_words
from ftsys.config.schema import RunConfig
from ftsys.config.task_checks import task_of

_CARE_ONLY = ("resume", "watchdog_seconds", "max_nonfinite_steps", "save_every", "save_keep")

RESULT_TRAINER_FIELDS = (
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "label_smoothing_factor",
    "lr_scheduler_kwargs",
    "lr_scheduler_type",
    "max_grad_norm",
    "neftune_noise_alpha",
    "optim",
    "optim_args",
    "warmup_steps",
    "weight_decay",
)
"""Fields of [trainer] that decide the weights; the others report, log or load and may change between lives."""


def identity_parts(run: RunConfig) -> dict[str, Any]:
    """What decides a run's results: task, data, model, batch, train and seed, in plain JSON values.

    Left out are the places and partitions that change no result: the store's folder, the micro-batch, the launch, the
    engine, and what train says about saving, resuming and watching.
    """
    train = run.train.model_dump()
    return {
        "task": asdict(task_of(run)),
        "data": {"source": run.data.source, "max_length": run.data.max_length} | _cut(run),
        "model": run.model.name,
        "batch": run.batch.model_dump(exclude={"micro_tokens"}),
        "train": {key: value for key, value in train.items() if key not in _CARE_ONLY},
        "trainer": {key: run.trainer[key] for key in RESULT_TRAINER_FIELDS if key in run.trainer},
    }


def _cut(run: RunConfig) -> dict[str, Any]:
    """Nothing where all rows are used: so runs that were begun before there was this key stay the same."""
    return {"first_rows": run.data.first_rows} if run.data.first_rows else {}


def run_identity(run: RunConfig) -> str:
    """Hex sha256 of `identity_parts` as canonical JSON, in the words that the first version used."""
    parts = identity_in_old_words(identity_parts(run))
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
