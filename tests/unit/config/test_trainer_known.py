"""Tests the list of TrainingArguments' fields against the installed transformers."""

from dataclasses import fields

import transformers

from ftsys.config.trainer_fields import OWNED_TRAINER_FIELDS, REFUSED_TRAINER_FIELDS
from ftsys.config.trainer_known import KNOWN_TRAINER_FIELDS


def test_every_field_of_transformers_is_known() -> None:
    installed = {field.name for field in fields(transformers.TrainingArguments) if field.init}
    assert len(installed) > 50
    assert installed - KNOWN_TRAINER_FIELDS - set(OWNED_TRAINER_FIELDS) - set(REFUSED_TRAINER_FIELDS) == set()
