"""Reads and sets the states of a process's random generators, as JSON: Python's, NumPy's and torch's."""

import base64
import random
from typing import Any

import numpy as np
import torch

from ftsys.distributed import all_gather_object


def gather_rng_states() -> list[dict[str, Any]]:
    """Return the states of every rank, by rank. Collective."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    own = {
        "python": random.getstate(),
        "numpy": [kind, np.asarray(keys).tolist(), position, has_gauss, gauss],
        "torch": _text(torch.get_rng_state()),
        "cuda": _text(torch.cuda.get_rng_state()) if torch.cuda.is_available() else None,
    }
    return all_gather_object(own)


def write_rng_state(saved: dict[str, Any]) -> None:
    """Set this process's generators to one rank's saved states."""
    version, words, gauss = saved["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = saved["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), position, has_gauss, cached))
    torch.set_rng_state(_tensor(saved["torch"]))
    if saved["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(_tensor(saved["cuda"]))


def _text(state: torch.Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _tensor(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
