"""The same run under every launcher: the same batches, the same losses, the same run folder."""

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from tests.end_to_end.commands import RUN_FILE, call, environment, free_port, losses, read_json, write_run_file

Found = TypeVar("Found")

RANKS = "2"

OWN_RUN_FILES = """
import os
import sys

from ftsys.cli import main

sys.exit(main(["train", f"run.{os.environ['RANK']}.toml"]))
"""


def launch(launcher: str, run_file: Path) -> list[str | Path]:
    words: list[str | Path] = ["-m", "ftsys", "train", run_file]
    if launcher == "torchrun":
        return ["torchrun", "--nproc-per-node", RANKS, "--master-port", free_port(), *words]
    if launcher == "accelerate":
        port = ["--main_process_port", free_port()]
        # Several processes without a GPU: accelerate starts them only under this name, and our ranks see the CPU.
        return ["accelerate", "launch", "--multi_gpu", "--num_processes", RANKS, "--num_machines", "1", *port, *words]
    return ["deepspeed", "--num_gpus", RANKS, "--master_port", free_port(), "--module", "ftsys", "train", run_file]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Path]:
    """The run folder of each launcher; every command must end with 0."""
    folders = {}
    for launcher in ("torchrun", "deepspeed", "accelerate"):
        folder = tmp_path_factory.mktemp(launcher)
        ended = call(*launch(launcher, write_run_file(folder, model=tiny_model)), cwd=folder, DS_ACCELERATOR="cpu")
        assert ended.returncode == 0, f"{launcher}:\n{ended.stdout[-2000:]}\n{ended.stderr[-4000:]}"
        assert "results.json" in ended.stdout
        folders[launcher] = folder / "run"
    return folders


def test_losses_are_the_same(runs: dict[str, Path]) -> None:
    expected = losses(runs["torchrun"])
    assert len(expected) == 5
    for launcher, folder in runs.items():
        assert losses(folder) == pytest.approx(expected, rel=1e-6), launcher


def test_metrics_and_predictions_are_the_same(runs: dict[str, Path]) -> None:
    expected = read_json(runs["torchrun"] / "results.json")["metrics"]
    texts = set()
    for launcher, folder in runs.items():
        found = read_json(folder / "results.json")["metrics"]
        assert found["validation"]["examples"] == 400, launcher
        assert found["validation"]["accuracy"] == expected["validation"]["accuracy"]
        assert found["validation"]["loss"] == pytest.approx(expected["validation"]["loss"], rel=1e-5)
        lines = (folder / "predictions/validation.tsv").read_text().splitlines()
        assert [int(line.split("\t")[0]) for line in lines[1:]] == list(range(400))
        texts.add("\n".join("\t".join(line.split("\t")[:3]) for line in lines))
    assert len(texts) == 1


def test_each_says_what_it_ran(runs: dict[str, Path]) -> None:
    backends = {launcher: read_json(folder / "results.json")["backend"] for launcher, folder in runs.items()}
    assert backends == {"torchrun": "ddp", "deepspeed": "deepspeed", "accelerate": "ddp"}
    for folder in runs.values():
        assert read_json(folder / "results.json")["world_size"] == int(RANKS)
        status = read_json(folder / "status.json")
        assert (status["state"], status["exit"]) == ("done", 0)


def test_more_ranks_than_examples_in_a_step_is_said_once(tmp_path: Path, tiny_model: Path) -> None:
    run_file = write_run_file(tmp_path, model=tiny_model)
    ended = call(*launch("torchrun", run_file), "--batch.global_size", "1", cwd=tmp_path)
    assert ended.returncode != 0
    assert ended.stderr.count("error: batch.global_size=1") == 1
    assert "the smallest that works is 2" in ended.stderr
    assert 'File "' not in ended.stderr.split("ChildFailedError")[0].split("Traceback")[0]
    assert not (tmp_path / "run").exists()


def test_an_error_that_only_rank_1_has_is_said_once(tmp_path: Path, tiny_model: Path) -> None:
    """A file that is missing on one of two nodes, say: rank 0 waits for the others, and knows of nothing."""
    script = tmp_path / "rank.py"
    script.write_text(OWN_RUN_FILES)
    run_file = write_run_file(tmp_path, model=tiny_model)
    run_file.rename(tmp_path / "run.0.toml")
    ended = call("torchrun", "--nproc-per-node", RANKS, "--master-port", free_port(), script, cwd=tmp_path)
    assert ended.returncode != 0
    assert ended.stderr.count("error: rank 1: ") == 1, ended.stderr
    assert "run.1.toml" in ended.stderr


def test_ranks_leave_when_torchrun_is_killed_before_the_first_save(tmp_path: Path, tiny_model: Path) -> None:
    """The ranks' key-value store dies with it: they cannot save, and must not wait for it."""
    text = RUN_FILE.replace("max_steps = 5", "max_steps = 1000000").replace("save_every = 5", 'save_every = "never"')
    text = text.replace("eval_every = 5", 'eval_every = "never"')
    command = launch("torchrun", write_run_file(tmp_path, text, tiny_model))
    with (tmp_path / "out").open("wb") as out:
        torchrun = subprocess.Popen([str(word) for word in command], env=environment(), stdout=out, stderr=out)
    started = [psutil.Process(torchrun.pid)]
    try:
        ranks = wait_until(lambda: training_ranks(torchrun.pid, tmp_path), seconds=300)
        started += started[0].children(recursive=True)
        torchrun.kill()
        torchrun.wait()
        wait_until(lambda: not any(Path(f"/proc/{rank}/exe").exists() for rank in ranks), seconds=60)
    finally:
        kill_all(started)
    assert "the ranks' key-value store is gone" in read_json(tmp_path / "run/status.json")["reason"]


def kill_all(started: list[psutil.Process]) -> None:
    """Kill what is left of them and of the children of the first: else it would train beside all later tests."""
    with suppress(psutil.Error):
        started += started[0].children(recursive=True)
    for process in started:
        with suppress(psutil.Error):
            process.kill()


def training_ranks(torchrun: int, folder: Path) -> list[str]:
    """Return the process ids of the ranks once they train, else nothing."""
    log = folder / "run/metrics.jsonl"
    begun = log.exists() and log.read_text()
    return Path(f"/proc/{torchrun}/task/{torchrun}/children").read_text().split() if begun else []


def wait_until(condition: Callable[[], Found], seconds: float) -> Found:
    """Return what the condition returns once that is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert found
    return found
