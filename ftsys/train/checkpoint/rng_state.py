"""Reads and sets the states of a process's random generators, as JSON: Python's, NumPy's and torch's."""

import base64
import random
from typing import Any, cast

import numpy as np
import torch
from typing_extensions import TypedDict

from ftsys.distributed import all_gather_json
from ftsys.errors import CheckpointError
from ftsys.files.untrusted import typed


class RngState(TypedDict):
    """The states of one process. Those of torch are in base64."""

    python: tuple[int, list[int], float | None]
    numpy: tuple[str, list[int], int, int, float]
    torch: str
    cuda: str | None


def gather_rng_states() -> list[RngState]:
    """Return the states of every rank, by rank. Collective."""
    kind, keys, position, has_gauss, gauss = cast(tuple[str, Any, int, int, float], np.random.get_state())
    version, words, cached = random.getstate()
    own = {
        "python": [version, list(words), cached],
        "numpy": [kind, np.asarray(keys).tolist(), position, has_gauss, gauss],
        "torch": _text(torch.get_rng_state()),
        "cuda": _text(torch.cuda.get_rng_state()) if torch.cuda.is_available() else None,
    }
    return [typed(RngState, state) for state in all_gather_json(own)]


def write_rng_state(saved: RngState) -> None:
    """Set this process's generators to one rank's saved states. Raises CheckpointError for what is none."""
    try:
        _write(saved)
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"a state of the random generators cannot be set ({error}): take another one") from error


def _write(saved: RngState) -> None:
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
