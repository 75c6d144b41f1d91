"""Tests what a run says about its energy: from begin to end of the training, once for each place."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ftsys.train.callbacks import energy
from ftsys.train.callbacks.energy import EnergyMeter, Reading, summed
from ftsys.train.perf.energy import NotToldError

ARGS: Any = SimpleNamespace(device=torch.device("cpu"))
NOTHING: Any = None


class FakeCounter:
    """Counts a joule more at each look; None: it stops telling."""

    name, place = "rapl", "here"

    def __init__(self, *values: float | None) -> None:
        self.values = list(values)

    def joules(self) -> float:
        value = self.values.pop(0)
        if value is None:
            raise NotToldError("it broke")
        return value


def meter_of(*values: float | None) -> tuple[EnergyMeter, FakeCounter]:
    counter = FakeCounter(*values)
    return EnergyMeter(lambda device: counter), counter


def test_it_counts_from_begin_to_end() -> None:
    meter, counter = meter_of(0.0, 12.5)
    assert meter.reading.joules is None
    meter.on_train_begin(ARGS, NOTHING, NOTHING)
    for _ in range(5):
        meter.on_step_end(ARGS, NOTHING, NOTHING)
    meter.on_train_end(ARGS, NOTHING, NOTHING)
    meter.on_prediction_step(ARGS, NOTHING, NOTHING)
    assert meter.reading == Reading("here", "rapl", 12.5)
    assert counter.values == []


def test_it_looks_often_enough_for_counters_that_wrap(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 19.0, 21.0, 21.0, 40.0, 42.0, 42.0, 43.0])
    monkeypatch.setattr(energy.time, "monotonic", lambda: next(times))
    meter, counter = meter_of(0.0, 1.0, 2.0, 3.0)
    meter.on_train_begin(ARGS, NOTHING, NOTHING)
    for _ in range(2):
        meter.on_step_end(ARGS, NOTHING, NOTHING)
        meter.on_prediction_step(ARGS, NOTHING, NOTHING)
    meter.on_train_end(ARGS, NOTHING, NOTHING)
    assert counter.values == []
    assert meter.reading.joules == 3.0


def test_a_counter_that_stops_telling_makes_the_whole_unknown() -> None:
    meter, _ = meter_of(0.0, None)
    meter.on_train_begin(ARGS, NOTHING, NOTHING)
    meter.on_train_end(ARGS, NOTHING, NOTHING)
    assert (meter.reading.joules, meter.reading.why_not) == (None, "it broke")


def test_ranks_on_one_machine_count_its_cpus_once() -> None:
    ranks = [Reading("a", "rapl", 10.0), Reading("a", "rapl", 11.0), Reading("b", "rapl", 5.0)]
    assert summed(ranks) == {"joules": 16.0, "counter": "rapl", "not_told": ""}
    assert summed([Reading("g0", "nvml", 2.0), Reading("g1", "nvml", 3.0)])["joules"] == 5.0


def test_a_rank_that_is_not_told_makes_the_sum_unknown() -> None:
    unknown = Reading("b", "", None, "no counter")
    assert summed([Reading("a", "rapl", 1.0), unknown]) == {
        "joules": None,
        "counter": None,
        "not_told": "b: no counter",
    }
    assert summed([unknown])["not_told"] == "no counter"
