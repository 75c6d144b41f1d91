"""Tests the grammar of a search space, and the mistakes in it. Add a line for a spelling or a mistake of your own."""

from typing import Any

import pytest

from ftsys.config import parse_overrides
from ftsys.errors import ConfigError
from ftsys.sweep.space import Choice, Range, Value, all_points, overrides_of, read_space, texts_of

RATE = "train.learning_rate"


@pytest.mark.parametrize(
    ("key", "spec", "wanted"),
    [
        ("batch.global_size", "16,32, 64", Choice((16, 32, 64))),
        ("batch.global_size", [16, 32], Choice((16, 32))),
        ("batch.order", "random,length_grouped", Choice(("random", "length_grouped"))),
        ("engine.activation_checkpointing", "true,false", Choice((True, False))),
        ("train.epochs", "3", Choice((3,))),
        ("train.epochs", "2..5", Range(2, 5, log=False)),
        ("train.epochs", "1..2.5", Range(1.0, 2.5, log=False)),
        ("batch.global_size", "log:8..128", Range(8, 128, log=True)),
        (RATE, "log:1e-5..1e-4", Range(1e-5, 1e-4, log=True)),
        ("trainer.weight_decay", "0.0..0.1", Range(0.0, 0.1, log=False)),
        ("trainer.warmup_steps", "-0.5..0.5", Range(-0.5, 0.5, log=False)),
    ],
)
def test_a_spec_is_read(key: str, spec: Any, wanted: Choice | Range) -> None:
    assert read_space({key: spec}) == {key: wanted}
    section, _, name = key.partition(".")
    assert read_space({section: {name: spec}}) == {key: wanted}
    assert read_space(texts_of({key: wanted})) == {key: wanted}


@pytest.mark.parametrize(
    ("key", "spec", "wanted"),
    [
        (RATE, "1e-4..1e-5", "is empty"),
        (RATE, "1e-4..1e-4", "is empty"),
        (RATE, "log:0..1e-4", "a log range from 0.0: start it above 0"),
        (RATE, "log:-1..1", "a log range from -1: start it above 0"),
        (RATE, "low..high", "is not a range of numbers"),
        (RATE, "0..inf", "is not a range of numbers"),
        (RATE, "1..2..3", "is not a range of numbers"),
        (RATE, "", "has an empty value or none"),
        (RATE, "1e-5,,1e-4", "has an empty value or none"),
        (RATE, [], "has an empty value or none"),
        (RATE, "1e-5,1e-5", "repeats a value"),
        (RATE, 1e-5, "cannot be read: write a list"),
        (RATE, [[1]], "cannot be read: write a list"),
        ("train.learning_rat", "1,2", "did you mean train.learning_rate"),
        ("trainer.weight_decai", "1,2", "did you mean 'weight_decay'"),
        ("trainer.bf16", "true,false", "which \\[trainer\\] does not pass on"),
        ("output_dir", "a,b", "the same in all trials"),
        ("task.name", "mrpc,rte", "the same in all trials"),
        ("sweep.trials", "1,2", "the same in all trials"),
    ],
)
def test_a_mistake_is_named(key: str, spec: Any, wanted: str) -> None:
    with pytest.raises(ConfigError, match=wanted):
        read_space({key: spec})


def test_all_mistakes_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        read_space({RATE: "2..1", "batch.global_siz": "1,2"})
    assert len(str(caught.value).splitlines()) == 2
    with pytest.raises(ConfigError, match="the sweep has no space"):
        read_space({})


def test_a_grid_is_all_combinations() -> None:
    space = read_space({"train.epochs": "2..3", "batch.order": "random,length_grouped"})
    assert [tuple(point.values()) for point in all_points(space)] == [
        *((2, "random"), (2, "length_grouped"), (3, "random"), (3, "length_grouped"))
    ]
    with pytest.raises(ConfigError, match="cannot be tried in full"):
        all_points(read_space({RATE: "0.1..0.2"}))


def test_overrides_give_the_values_back() -> None:
    values: dict[str, Value] = {
        RATE: 1.25e-05,
        "batch.order": "random",
        "engine.compile": True,
        "model.name": '1,5 "quoted"',
    }
    tree = parse_overrides(overrides_of(values))
    assert {f"{section}.{key}": value for section, keys in tree.items() for key, value in keys.items()} == values
