"""Tests the background save: it is waited for, and its error is raised."""

import threading
from types import SimpleNamespace

import pytest
import torch

from ftsys.errors import FtsysError, StorageError
from ftsys.train.checkpoint import background
from ftsys.train.checkpoint.background import BackgroundSaver, bytes_of, fits_in_memory
from ftsys.train.checkpoint.training_state import FullState


def test_work_goes_on_while_its_starter_does() -> None:
    go, done = threading.Event(), []
    saver = BackgroundSaver(lambda error: None)
    saver.start(lambda: done.append(go.wait(10)))
    assert done == []
    go.set()
    saver.wait()
    assert done == [True]
    saver.wait()


def test_an_error_is_told_at_once_and_raised_once() -> None:
    told: list[FtsysError] = []
    heard = threading.Event()

    def hear(error: FtsysError) -> None:
        told.append(error)
        heard.set()

    def fail() -> None:
        raise StorageError("the disk is full")

    saver = BackgroundSaver(hear)
    saver.start(fail)
    assert heard.wait(10)
    with pytest.raises(StorageError, match="the disk is full"):
        saver.wait()
    saver.wait()
    assert len(told) == 1


def test_any_other_error_keeps_its_type() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    saver = BackgroundSaver(lambda error: pytest.fail("no error of this project"))
    saver.start(fail)
    with pytest.raises(ZeroDivisionError):
        saver.wait()


def test_one_piece_at_a_time() -> None:
    saver = BackgroundSaver(lambda error: None)
    saver.start(lambda: None)
    with pytest.raises(AssertionError):
        saver.start(lambda: None)
    saver.wait()


def test_what_is_kept_must_fit() -> None:
    state = FullState(weights={"w": torch.zeros(10)}, moments={"exp_avg": {"w": torch.zeros(10)}})
    assert bytes_of(state) == 80
    assert fits_in_memory(80)
    assert not fits_in_memory(1 << 60)


def test_a_save_in_the_foreground_is_done_at_once() -> None:
    done: list[int] = []
    gate = threading.Event()
    threading.Timer(0.05, gate.set).start()
    saver = BackgroundSaver(lambda error: None)
    saver.start(lambda: done.append(gate.wait(10)), in_background=False)
    assert done == [True]
    saver.wait()


def test_every_tensor_of_a_state_counts() -> None:
    moments = {"exp_avg": {"w": torch.zeros(3)}, "exp_avg_sq": {"w": torch.zeros(3, dtype=torch.float64)}}
    state = FullState(weights={"w": torch.zeros(3)}, buffers={"b": torch.zeros(5, dtype=torch.int8)}, moments=moments)
    assert bytes_of(state) == 12 + 5 + 12 + 24


@pytest.mark.parametrize(("size", "fits"), [(49, True), (51, False)])
def test_a_save_leaves_as_much_memory_as_it_takes(monkeypatch: pytest.MonkeyPatch, size: int, fits: bool) -> None:
    monkeypatch.setattr(background.psutil, "virtual_memory", lambda: SimpleNamespace(available=100))
    assert fits_in_memory(size) is fits
