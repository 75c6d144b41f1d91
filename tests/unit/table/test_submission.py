"""Tests the run that predicts the diagnostic set with an MNLI model."""

import pytest

from ftsys.config import build_run, plain_tree
from ftsys.errors import ConfigError
from ftsys.table.results.submission import _of_diagnostic


def test_a_run_of_mnli_becomes_one_of_ax_whatever_it_evaluates() -> None:
    mnli = build_run(
        {
            "output_dir": "out",
            "task": {"name": "mnli"},
            "data": {"first_rows": {"train": 40}, "max_length": 77},
            "train": {"keep_best": "accuracy", "early_stopping": {"patience": 2}},
        }
    )
    run = build_run(_of_diagnostic(mnli))
    assert (run.task.name, run.output_dir, run.data.max_length) == ("ax", "out", 77)
    with pytest.raises(ConfigError, match="needs evaluations"):
        build_run({**plain_tree(mnli), "task": {"name": "ax"}})
