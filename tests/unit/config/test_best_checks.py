"""Tests train.keep_best and train.early_stopping: the metric that they mean, and the mistakes that they allow."""

from typing import Any

import pytest

from ftsys.config import best_metric, build_run, run_identity
from ftsys.errors import ConfigError

STOPPING = {"metric": "f1", "patience": 3}
SPLITS = {"train": "a.csv", "validation_a": "b.csv", "validation_b": "c.csv"}
BEST = {"trainer": {"load_best_model_at_end": True}}
OWN = {"name": "own", "columns": ["text"], "labels": ["no", "yes"]}


def build(train: dict[str, Any], **sections: Any) -> Any:
    return build_run({"output_dir": "runs/x", "task": {"name": "mrpc"}, "train": train, **sections})


@pytest.mark.parametrize(
    ("train", "sections", "wanted"),
    [
        ({}, {}, "accuracy"),
        ({"keep_best": "f1"}, {}, "f1"),
        ({"early_stopping": {"patience": 1}}, {}, "accuracy"),
        ({"early_stopping": STOPPING}, {}, "f1"),
        ({"keep_best": "f1", "early_stopping": {"patience": 2, "threshold": 0.01}}, {}, "f1"),
        ({}, {"trainer": {"metric_for_best_model": "loss"}}, "loss"),
        ({}, {"task": OWN, "data": {"source": SPLITS}}, "validation_a_accuracy"),
        ({"keep_best": "loss"}, {"task": OWN, "data": {"source": SPLITS}}, "validation_a_loss"),
        ({"keep_best": "validation_b_loss"}, {"task": OWN, "data": {"source": SPLITS}}, "validation_b_loss"),
    ],
)
def test_the_metric_that_decides(train: dict[str, Any], sections: dict[str, Any], wanted: str) -> None:
    assert best_metric(build(train, **sections)) == wanted


@pytest.mark.parametrize(
    ("train", "sections", "wanted"),
    [
        ({"keep_best": "f2"}, {}, "keep_best names 'f2', .* did you mean 'f1'"),
        ({"keep_best": "pearson"}, {}, "keep_best names 'pearson', which evaluations do not compute"),
        ({"keep_best": 1}, {}, "keep_best=1 cannot be used: write the name of a metric"),
        ({"early_stopping": {"metric": "acuracy", "patience": 1}}, {}, "early_stopping names 'acuracy', .* 'accuracy'"),
        ({"early_stopping": {"metric": "f1", "patience": 0}}, {}, "'patience': 0.* patience a whole number above 0"),
        ({"early_stopping": {"metric": "f1"}}, {}, "cannot be used: write a table such as"),
        ({"early_stopping": STOPPING | {"patiense": 3}}, {}, "'patiense': 3.* cannot be used: write a table such as"),
        ({"early_stopping": 3}, {}, "early_stopping=3 cannot be used: write a table such as"),
        ({"early_stopping": STOPPING, "eval_every": "never"}, {}, "needs evaluations, but train.eval_every='never'"),
        ({"keep_best": "f1", "eval_every": "never"}, {}, "needs evaluations, but train.eval_every='never'"),
        ({"keep_best": "f1", "eval_every": 5, "save_every": 10}, {}, "eval_every=5 and train.save_every=10: write one"),
        (
            {"eval_every": 10, "save_every": 20},
            BEST,
            "at_end=True needs a checkpoint of .*=10 and train.save_every=20:",
        ),
        ({"save_every": "never"}, BEST, 'write one for both, or train.keep_best and save_every = "never"'),
        ({"eval_every": "never"}, BEST, "load_best_model_at_end needs evaluations, but train.eval_every='never'"),
        ({"keep_best": "loss", "early_stopping": STOPPING}, {}, "name two metrics, f1 and loss"),
        ({"keep_best": "f1"}, {"trainer": {"load_best_model_at_end": True}}, "and trainer.load_best_model_at_end=True"),
        (
            {"keep_best": "accuracy"},
            {"task": OWN, "data": {"source": {"train": "a.csv"}}},
            "the source has no evaluation split",
        ),
    ],
)
def test_a_mistake_is_reported_in_one_line(train: dict[str, Any], sections: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ConfigError, match=wanted) as caught:
        build(train, **sections)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("train", [{}, {"eval_every": 5, "save_every": 5}])
def test_the_trainers_own_way_is_accepted_where_each_evaluation_is_saved(train: dict[str, Any]) -> None:
    assert build(train, **BEST).trainer == BEST["trainer"]
    other = build({"eval_every": 5, "save_every": 10}, trainer={"load_best_model_at_end": False})
    assert other.train.save_every == 10


def test_a_run_without_the_keys_keeps_its_identity() -> None:
    """The hash is that of a version without the keys: its checkpoints must be found."""
    assert run_identity(build({})) == "09c8da8ed8de7cc8e13248ff8d600bc5a339fc250b899790372ffcea034bd124"
    kept = {run_identity(build(train)) for train in ({}, {"keep_best": "f1"}, {"early_stopping": STOPPING})}
    assert len(kept) == 3
