"""The values of train.class_weights that fit a task, each mistake, and the run's identity."""

import math
from typing import Any

import pytest

from ftsys.config import build_run, load_run, run_identity
from ftsys.config.build import plain_tree
from ftsys.errors import ConfigError

FILES = {"train": "a.csv", "validation": "b.csv"}
TWO = {"name": "spam", "columns": ["text"], "labels": ["ham", "spam"]}
NUMBER = {"name": "score", "columns": ["text"], "regression": True}


def build(weights: Any, task: dict[str, Any] = TWO) -> Any:
    tree = {"output_dir": "x", "task": task, "data": {"source": FILES}, "train": {"class_weights": weights}}
    return build_run(tree)


@pytest.mark.parametrize("weights", ["none", "balanced", [1, 7.5], {"spam": 3}, {"ham": 0.5, "spam": 2.0}])
def test_each_way_to_write_weights_comes_back(weights: Any) -> None:
    run = build(weights)
    again = build_run(plain_tree(run))
    assert again == run
    assert plain_tree(again)["train"]["class_weights"] == weights


def test_weights_can_be_given_on_the_command_line(tmp_path: Any) -> None:
    from ftsys.config import dump_toml

    (tmp_path / "run.toml").write_text(dump_toml(build("none")))
    for text, value in (("balanced", "balanced"), ("[1, 2]", (1.0, 2.0)), ("{spam = 4.0}", {"spam": 4.0})):
        run = load_run(tmp_path / "run.toml", ["--train.class_weights", text])
        assert run.train.class_weights == value


@pytest.mark.parametrize(
    ("weights", "task", "said"),
    [
        ("balanced", NUMBER, "train.class_weights='balanced' weighs classes, and task 'score' is a regression"),
        ([1.0], NUMBER, "train.class_weights=(1.0,) weighs classes, and task 'score' is a regression"),
        ([1.0, 2.0, 3.0], TWO, "train.class_weights=(1.0, 2.0, 3.0) has 3 numbers, and task 'spam' has 2 labels"),
        ([], TWO, "train.class_weights=() has 0 numbers, and task 'spam' has 2 labels"),
        (
            {"spma": 2.0},
            TWO,
            "train.class_weights={'spma': 2.0} names 'spma', which is no label of task 'spam': did you",
        ),
        ([1.0, -2.0], TWO, 'train.class_weights=[1.0, -2.0] cannot be used: write "none", "balanced", a list of num'),
        ([1.0, 0.0], TWO, "train.class_weights=[1.0, 0.0] cannot be used"),
        ([1.0, math.nan], TWO, "train.class_weights=[1.0, nan] cannot be used"),
        ({"spam": math.inf}, TWO, "train.class_weights={'spam': inf} cannot be used"),
        ({"spam": "2"}, TWO, "train.class_weights={'spam': '2'} cannot be used"),
        ("balance", TWO, "train.class_weights='balance' cannot be used"),
        (2.0, TWO, "train.class_weights=2.0 cannot be used"),
    ],
)
def test_each_mistake_is_one_clear_message(weights: Any, task: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(weights, task)
    (message,) = caught.value.messages
    assert message.startswith(said)


def test_weights_are_part_of_the_identity_only_where_they_are_set() -> None:
    identities = [run_identity(build(weights)) for weights in ("none", "balanced", [1.0, 2.0], [1.0, 3.0])]
    assert len(set(identities)) == 4
    assert identities[0] == run_identity(build_run({"output_dir": "y", "task": TWO, "data": {"source": FILES}}))
