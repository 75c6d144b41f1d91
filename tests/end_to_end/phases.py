"""Lets the ranks of an attempt stay a moment in a phase of their run, and says when they have reached it."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.end_to_end.attempts import Attempt

ALONE = ("start", "prepare", "connect")
"""Phases in which ranks do not know each other yet: only the launcher can tell them that one has died."""
TOGETHER = ("set-up", "first step", "train", "evaluate", "save", "finish", "model")
"""Phases in which each rank knows the others. "set-up" makes the Trainer; "train" is the third step of the attempt;
"model" is that in which rank 0 has written the weights of the trained model and not yet moved them to their place."""
LINGER_SECONDS = 0.5
REACHED_SECONDS = 60.0

_STEPS = {"first step": 1, "train": 3}


def linger(rank: int, phase: str) -> None:
    """In a rank, before its command: once `phase` is reached, leave a file and stay in it long enough to be hit."""
    if phase == "start":
        _mark(rank)
    elif phase == "prepare":
        from ftsys.train import run

        run.ensure_store = _marking(rank, run.ensure_store)
    elif phase == "connect":
        from ftsys.train import session

        session.open_session = _marking(rank, session.open_session)
    elif phase == "set-up":
        from ftsys.train import session

        session._trainer = _marking(rank, session._trainer)
    elif phase == "finish":
        from ftsys.train import finish

        finish.finish = _marking(rank, finish.finish)
    elif phase == "model":
        from ftsys.files.integrity import HashedFile

        close, lingering = HashedFile.close, _marking(rank, HashedFile.close)

        def close_weights(file: HashedFile) -> None:
            (lingering if "model.safetensors" in file.name else close)(file)

        HashedFile.close = close_weights  # type: ignore[assignment, method-assign]  # this process is one rank
    elif phase == "save":
        from ftsys.train.trainer.checkpointers import run_folder

        run_folder.write_shard = _marking(rank, run_folder.write_shard)
    else:
        from ftsys.train.trainer.trainer import Trainer

        name, call = ("evaluation_loop", 1) if phase == "evaluate" else ("training_step", _STEPS[phase])
        setattr(Trainer, name, _marking(rank, getattr(Trainer, name), call))


def wait_until_reached(attempt: Attempt, rank: int) -> None:
    """Wait until `rank` is in the phase that it lingers in. Raises AssertionError if that takes too long."""
    path, deadline = attempt.folder / f"reached-{rank}", time.monotonic() + REACHED_SECONDS
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} never came\n{attempt.log()}"
        time.sleep(0.005)


def forget_reached(folder: Path) -> None:
    """Remove the files that ranks of an attempt have left, before the next attempt."""
    for path in folder.glob("reached-*"):
        path.unlink()


def _marking(rank: int, function: Callable[..., Any], call: int = 1) -> Callable[..., Any]:
    """Return the function, whose `call`-th call lingers first."""
    calls = itertools.count(1)

    def marked(*args: Any, **named: Any) -> Any:
        if next(calls) == call:
            _mark(rank)
        return function(*args, **named)

    return marked


def _mark(rank: int) -> None:
    Path(f"reached-{rank}").touch()
    time.sleep(LINGER_SECONDS)
