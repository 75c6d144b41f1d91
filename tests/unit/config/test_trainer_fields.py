"""Tests the rules for [trainer] against the TrainingArguments of the installed transformers."""

from dataclasses import fields

import pytest

from ftsys.config import known_keys
from ftsys.config.trainer_fields import _KINDS, OWNED_TRAINER_FIELDS, REFUSED_TRAINER_FIELDS
from ftsys.train.trainer.arguments import TrainingArguments

SINCE_5_23 = {"activation_checkpointing", "activation_checkpointing_kwargs"}
OF_OLDER_VERSIONS = {
    "evaluation_strategy",
    "group_by_length",
    "logging_dir",
    "no_cuda",
    "overwrite_output_dir",
    "per_gpu_eval_batch_size",
    "per_gpu_train_batch_size",
    "save_safetensors",
    "warmup_ratio",
}


@pytest.fixture(scope="module")
def real_fields() -> set[str]:
    return {field.name for field in fields(TrainingArguments)}


def test_every_name_is_a_field_or_was_one(real_fields: set[str]) -> None:
    named = {*OWNED_TRAINER_FIELDS, *REFUSED_TRAINER_FIELDS, *_KINDS}
    assert named - real_fields - SINCE_5_23 == OF_OLDER_VERSIONS


def test_owners_are_keys_of_the_tree() -> None:
    assert set(OWNED_TRAINER_FIELDS.values()) <= set(known_keys())


def test_a_field_has_one_owner() -> None:
    assert not set(OWNED_TRAINER_FIELDS) & set(REFUSED_TRAINER_FIELDS)


def test_no_batch_precision_or_schedule_field_is_forgotten(real_fields: set[str]) -> None:
    words = ("batch_size", "bf16", "fp16", "eval_st", "save_st", "save_total", "num_train", "max_steps", "seed", "fsdp")
    free = {"save_on_each_node", "batch_eval_metrics", "save_stock_state"}
    touching = {name for name in real_fields if any(word in name for word in words)}
    assert touching - free - set(OWNED_TRAINER_FIELDS) == set()
