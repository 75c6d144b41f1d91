"""Predicts with a finished run on two ranks of which one fails or dies: the other one leaves soon."""

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from ftsys.errors import DataError
from ftsys.ranks import is_loopback
from tests.end_to_end.attempts import RUN_FILE, Attempt, finish, make_project, start

PATIENCE = 90.0
SHORT = RUN_FILE.replace("max_steps = 12", "max_steps = 2")
ADDRESSES = "addresses.json"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path) -> Path:
    """A finished run of two steps; the tests write nothing but its predictions."""
    made = make_project(tmp_path_factory.mktemp("predict"), minilm_folder, SHORT)
    finish(made, 1)
    return made


def on_one_rank(rank: int, what: str) -> None:
    """Make rank R do what "R: ..." says where it is about to predict."""
    from ftsys.train.trainer.trainer import Trainer

    number, deed = what.split(": ")
    if int(number) == rank:
        predict = Trainer.predict
        deeds = {"fails alone": _fail, "notes where it listens": _note_addresses}
        act = deeds.get(deed, lambda: os.kill(os.getpid(), signal.Signals[deed]))

        def acting(*arguments: Any, **others: Any) -> Any:
            act()
            return predict(*arguments, **others)

        Trainer.predict = acting  # type: ignore[method-assign]  # this process is one rank


def _fail() -> None:
    raise DataError("row 7 is odd")


def _note_addresses() -> None:
    ports = psutil.Process().net_connections(kind="tcp")
    found = sorted({port.laddr.ip for port in ports if port.status == psutil.CONN_LISTEN})
    Path(ADDRESSES).write_text(json.dumps(found))


def predicting(project: Path, what: str, command: str = "predict") -> Attempt:
    return start(project, 2, prepare=(on_one_rank, what), command=(command, "run.toml"))


@pytest.mark.parametrize(("rank", "command"), [(0, "predict"), (1, "evaluate")])
def test_a_killed_rank_ends_the_other_one(project: Path, rank: int, command: str) -> None:
    attempt = predicting(project, f"{rank}: SIGKILL", command)
    statuses = attempt.statuses(PATIENCE)
    assert (statuses[rank], statuses[1 - rank]) == (-signal.SIGKILL, 1), attempt.log()
    assert f"error: rank {rank} died (" in attempt.log()
    assert re.search("in phase 'predict'|before its first heartbeat", attempt.log())
    assert "Start the same command again." in attempt.log()
    assert "Traceback" not in attempt.log()
    assert json.loads((project / "run/status.json").read_text())["exit"] == 0, "the run itself has ended well"
    again = predicting(project, "2: nothing", command)
    assert again.statuses(PATIENCE) == [0, 0], again.log()


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_that_a_rank_has_alone_ends_the_other_one(project: Path, rank: int) -> None:
    attempt = predicting(project, f"{rank}: fails alone")
    assert attempt.statuses(PATIENCE) == [2, 2], attempt.log()
    assert "row 7 is odd" in attempt.log()
    assert "Traceback" not in attempt.log()


def test_other_machines_do_not_reach_the_ranks_of_one(project: Path) -> None:
    attempt = predicting(project, "0: notes where it listens")
    assert attempt.statuses(PATIENCE) == [0, 0], attempt.log()
    found = json.loads((project / ADDRESSES).read_text())
    assert found, "gloo listens"
    assert all(map(is_loopback, found)), found
