"""Tests the list of TrainingArguments' fields against the installed transformers."""

from dataclasses import fields

import transformers

from ftsys.config.trainer_fields import KNOWN_TRAINER_FIELDS, OWNED_TRAINER_FIELDS, REFUSED_TRAINER_FIELDS
from ftsys.config.trainer_known import HONOURED_TRAINER_FIELDS


def test_every_field_of_transformers_is_known() -> None:
    installed = {field.name for field in fields(transformers.TrainingArguments) if field.init}
    assert len(installed) > 50
    assert installed - KNOWN_TRAINER_FIELDS == set()


def test_a_field_is_in_one_table_only() -> None:
    tables = [set(OWNED_TRAINER_FIELDS), set(REFUSED_TRAINER_FIELDS), set(HONOURED_TRAINER_FIELDS)]
    assert sum(map(len, tables)) == len(KNOWN_TRAINER_FIELDS)


def test_what_is_passed_on_is_a_field_of_the_installed_version() -> None:
    installed = {field.name for field in fields(transformers.TrainingArguments) if field.init}
    assert set(HONOURED_TRAINER_FIELDS) - installed == set()
