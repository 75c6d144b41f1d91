"""Measures the energy of a training where the devices tell it."""

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftsys.train.perf.energy import Counter, NotToldError, Nvml, Rapl

SAMPLE_SECONDS = 20.0
"""Time between two looks at a counter, which is far less than the time after which one wraps around."""


@dataclass(frozen=True)
class Reading:
    """The joules of one rank's device in this attempt's training; None where it is not told, with the reason."""

    place: str
    counter: str
    joules: float | None
    why_not: str = ""


class EnergyMeter(TrainerCallback):
    """Counts from the beginning of the training to its end, evaluations included."""

    def __init__(self, open_counter: Callable[[torch.device], Counter] | None = None) -> None:
        """Take the counter of the rank's device from `open_counter`, which may raise NotToldError."""
        self._open = open_counter or counter_of
        self._counter: Counter | None = None
        self._looked = 0.0
        self.reading = Reading("", "", None, "nothing was trained")

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the counter."""
        try:
            self._counter = self._open(args.device)
            self._look()
        except NotToldError as error:
            self._give_up(error)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Look at the counter, if it is time to."""
        self._look_if_due()

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look at the counter, if it is time to."""
        self._look_if_due()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the last value."""
        self._look()
        self._counter = None

    def _look_if_due(self) -> None:
        if self._counter is not None and time.monotonic() - self._looked >= SAMPLE_SECONDS:
            self._look()

    def _look(self) -> None:
        if self._counter is None:
            return
        self._looked = time.monotonic()
        try:
            self.reading = Reading(self._counter.place, self._counter.name, self._counter.joules())
        except NotToldError as error:
            self._give_up(error)

    def _give_up(self, error: NotToldError) -> None:
        self._counter = None
        self.reading = Reading(socket.gethostname(), "", None, str(error))


def counter_of(device: torch.device) -> Counter:
    """Open the counter of a rank's device: of its GPU, or of all CPUs of the machine. Raises NotToldError."""
    if device.type == "cpu":
        return Rapl(socket.gethostname())
    return Nvml(str(torch.cuda.get_device_properties(device).uuid))


def summed(readings: Sequence[Reading]) -> dict[str, Any]:
    """Sum the readings of all ranks for results.json; those of one place, such as a machine's CPUs, count once.

    "joules" is None if one of them is not told; "not_told" then has the reason.
    """
    unknown = next((one for one in readings if one.joules is None), None)
    if unknown is not None:
        where = f"{unknown.place}: " if len(readings) > 1 else ""
        return {"joules": None, "counter": None, "not_told": f"{where}{unknown.why_not}"}
    by_place: dict[str, float] = {}
    for one in readings:
        by_place[one.place] = max(by_place.get(one.place, 0.0), one.joules or 0.0)
    return {"joules": sum(by_place.values()), "counter": readings[0].counter, "not_told": ""}
