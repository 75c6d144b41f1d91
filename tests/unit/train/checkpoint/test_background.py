"""Work beside the training: waited for, and its error heard."""

import threading

import pytest
import torch

from ftsys.errors import FtsysError, StorageError
from ftsys.train.checkpoint.background import Beside, bytes_of, fits_beside
from ftsys.train.checkpoint.training_state import FullState


def test_work_goes_on_while_its_starter_does() -> None:
    go, done = threading.Event(), []
    beside = Beside(lambda error: None)
    beside.start(lambda: done.append(go.wait(10)))
    assert done == []
    go.set()
    beside.wait()
    assert done == [True]
    beside.wait()


def test_an_error_is_told_at_once_and_raised_once() -> None:
    told: list[FtsysError] = []
    heard = threading.Event()

    def hear(error: FtsysError) -> None:
        told.append(error)
        heard.set()

    def fail() -> None:
        raise StorageError("the disk is full")

    beside = Beside(hear)
    beside.start(fail)
    assert heard.wait(10)
    with pytest.raises(StorageError, match="the disk is full"):
        beside.wait()
    beside.wait()
    assert len(told) == 1


def test_any_other_error_keeps_its_type() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    beside = Beside(lambda error: pytest.fail("no error of this project"))
    beside.start(fail)
    with pytest.raises(ZeroDivisionError):
        beside.wait()


def test_one_piece_at_a_time() -> None:
    beside = Beside(lambda error: None)
    beside.start(lambda: None)
    with pytest.raises(AssertionError):
        beside.start(lambda: None)
    beside.wait()


def test_what_is_kept_must_fit() -> None:
    state = FullState(weights={"w": torch.zeros(10)}, moments={"exp_avg": {"w": torch.zeros(10)}})
    assert bytes_of(state) == 80
    assert fits_beside(80)
    assert not fits_beside(1 << 60)
