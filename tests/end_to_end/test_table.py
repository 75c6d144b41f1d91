"""`ftsys table`, killed in the middle twice and started again, gives the table of an undisturbed one."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.attempts import make_project
from tests.fork_server import fork_server, write_to

RUN_FILE = """
output_dir = "table"
[model]
name = "model"
[batch]
global_size = 8
[train]
max_steps = 8
eval_every = "never"
save_every = 2
learning_rate = 1e-3
[engine]
precision = "fp32"
[trainer]
logging_steps = 1
[table]
tasks = ["length.toml", "parity.toml"]
seeds = "1..2"
"""
TASK = """
[task]
name = "{name}"
columns = ["text"]
labels = ["no", "yes"]
[data]
source = {{train = "{name}.csv", validation = "{name}.csv"}}
"""
SECONDS = 240.0


class Forked:
    """A cell as a fork of the table's process, in the place of a new interpreter, which takes seconds to start."""

    def __init__(self, cell: Any, slot: Any) -> None:
        from ftsys.table.pool.process import open_cell

        path, stream = open_cell(cell)
        with stream:
            self.process = multiprocessing.get_context("fork").Process(target=_train, args=(path, stream.fileno()))
            self.process.start()
        self.terminate, self.kill = self.process.terminate, self.process.kill

    def poll(self) -> int | None:
        return self.process.exitcode


def _train(path: Path, log: int) -> None:
    from ftsys.console.parent_exit import signal_at_parent_exit

    signal_at_parent_exit(signal.SIGTERM, os.getppid())
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.dup2(log, 1)
    os.dup2(log, 2)
    from ftsys.cli import main

    sys.exit(main(["train", str(path)]))


def _be_a_table(folder: Path, cache: str) -> None:
    write_to([folder / "table.log"])
    os.chdir(folder)
    os.environ.update({"OMP_NUM_THREADS": "1", "FTSYS_CACHE": cache})
    from ftsys.cli import main
    from ftsys.table.pool import whole

    whole.Pool = partial(whole.Pool, start=Forked)  # type: ignore[misc, assignment]
    sys.exit(main(["table", "run.toml", "--slots", "2", "--cpu"]))


def start(folder: Path) -> Any:
    process = fork_server().Process(target=_be_a_table, args=(folder, os.environ["FTSYS_CACHE"]))
    process.start()
    return process


def wait(process: Any, folder: Path, pattern: str) -> bool:
    """Wait until a file is there; returns False if the table ended before."""
    deadline = time.monotonic() + SECONDS
    while not list(folder.glob(pattern)):
        assert time.monotonic() < deadline, (folder / "table.log").read_text()
        if process.exitcode is not None:
            return False
        time.sleep(0.01)
    return True


def write_project(folder: Path, minilm: Path) -> Path:
    make_project(folder, minilm, RUN_FILE)
    rows = [f"the number {number} and nothing more,{'yes' if number % 2 else 'no'}" for number in range(48)]
    for name, order in (("parity", 1), ("length", -1)):
        (folder / f"{name}.toml").write_text(TASK.format(name=name))
        (folder / f"{name}.csv").write_text("\n".join(["text,label", *rows[::order]]) + "\n")
    return folder


def table(folder: Path) -> tuple[str, str, str, dict[str, Any]]:
    """All that a table writes, without times."""
    markdown = (folder / "table/table.md").read_text().partition("## Time")[0]
    values = json.loads((folder / "table/table.json").read_text())
    values.pop("times")
    return markdown, (folder / "table/table.csv").read_text(), (folder / "table/table.tex").read_text(), values


@pytest.mark.timeout(600)
def test_killed_twice_it_gives_the_same_table(tmp_path: Path, minilm_folder: Path) -> None:
    undisturbed = write_project(tmp_path / "undisturbed", minilm_folder)
    killed = tmp_path / "killed"
    shutil.copytree(undisturbed, killed)
    one = start(undisturbed)
    one.join(SECONDS)
    assert one.exitcode == 0, (undisturbed / "table.log").read_text()

    for pattern in ("table/model/*/seed-*/metrics.jsonl", "table/model/*/seed-*/results.json"):
        process = start(killed)
        assert wait(process, killed, pattern), (killed / "table.log").read_text()
        process.kill()
        process.join(SECONDS)
        assert process.exitcode == -signal.SIGKILL
    assert len(list(killed.glob("table/model/*/seed-*/results.json"))) < 4
    process = start(killed)
    process.join(SECONDS)
    log = (killed / "table.log").read_text()
    assert process.exitcode == 0, log
    assert table(killed) == table(undisturbed)
    attempts = [json.loads(path.read_text())["attempt"] for path in killed.glob("table/model/*/seed-*/owner.json")]
    assert max(attempts) > 1, "an attempt was killed"
    assert not list(killed.glob("table/model/*/seed-*/failures.json")), "a killed attempt is no failure"
