"""Tests that the states of random generators go through JSON and come back exactly."""

import json
import random

import numpy as np
import torch

from ftsys.train.checkpoint.rng_state import gather_rng_states, write_rng_state


def numbers() -> tuple[float, ...]:
    """Numbers of every generator; normal ones come in pairs, of which the second is kept for the next call."""
    python = (random.random(), random.gauss(0, 1))
    return (*python, float(np.random.rand()), float(np.random.randn()), float(torch.rand(())), float(torch.randn(())))


def test_every_generator_goes_on_as_before() -> None:
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    numbers()
    (saved,) = json.loads(json.dumps(gather_rng_states()))
    expected = [numbers() for _ in range(3)]
    random.seed(7)
    np.random.seed(8)
    torch.manual_seed(9)
    assert numbers() != expected[0]
    write_rng_state(saved)
    assert [numbers() for _ in range(3)] == expected


def test_a_state_of_a_gpu_is_left_out_where_there_is_none() -> None:
    (saved,) = gather_rng_states()
    assert (saved["cuda"] is None) == (not torch.cuda.is_available())
    write_rng_state({**saved, "cuda": None})
