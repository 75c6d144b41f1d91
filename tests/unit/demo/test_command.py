"""Tests the steps of `ftsys demo` before and after the ranks run."""

import base64
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from ftsys.demo import command as demo
from ftsys.errors import ConfigError
from ftsys.ranks import free_port

CPU = demo.Devices((), cores=4)
TWO_GPUS = demo.Devices(("3", "5"), cores=16)


def test_ranks_and_threads_fill_the_machine() -> None:
    assert (CPU.ranks, CPU.threads) == (2, 2)
    assert (TWO_GPUS.ranks, TWO_GPUS.threads) == (2, 8)
    assert demo.Devices((), cores=1).threads == 1
    assert str(demo.Devices(("0",), cores=1)) == "1 GPU rank, 1 thread each"


def test_each_start_makes_a_new_run_folder(tmp_path: Path) -> None:
    parent = tmp_path / "runs"
    assert [demo.new_run_folder(parent).name for _ in range(2)] == ["demo-001", "demo-002"]
    (parent / "demo-0417").mkdir()
    (parent / "demo-old").mkdir()
    assert demo.new_run_folder(parent).name == "demo-418"


def test_starts_at_once_never_share_a_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "glob", lambda *_: iter(()))  # all of them look before any has made its folder
    assert [demo.new_run_folder(tmp_path).name for _ in range(3)] == ["demo-001", "demo-002", "demo-003"]


def test_a_run_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(ConfigError, match=r"cannot make a run folder in '.*runs'.*--runs"):
        demo.new_run_folder(tmp_path / "runs")


@pytest.mark.parametrize(
    "words", [["--output_dir", "x"], ["--output_dir=x"], ["--train.seed", "3", "--output_dir", "x"]]
)
def test_another_run_folder_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setattr(demo, "run_ranks", lambda *_: pytest.fail("ranks were started"))
    with pytest.raises(ConfigError, match=r"--output_dir cannot be used with the demo.*--runs FOLDER"):
        demo.main(["--runs", str(tmp_path / "runs"), *words])
    assert not (tmp_path / "runs").exists()


def test_the_port_can_be_bound() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))


@pytest.mark.parametrize(("devices", "slots"), [(CPU, [0, 1]), (TWO_GPUS, ["3", "5"])])
def test_the_command_is_what_the_deepspeed_launcher_itself_starts(
    monkeypatch: pytest.MonkeyPatch, devices: demo.Devices, slots: list[object]
) -> None:
    from deepspeed.launcher import launch

    command = demo.launch_command(devices, 29_999, ["train", "run.toml", "--output_dir", "runs/x"])
    monkeypatch.setattr(sys, "argv", command[4:])
    assert command[:5] == [sys.executable, "-P", "-u", "-c", demo.LAUNCHER]
    parsed = launch.parse_args()
    assert json.loads(base64.urlsafe_b64decode(parsed.world_info)) == {"localhost": slots}
    assert (parsed.module, parsed.training_script, parsed.master_port) == (True, "ftsys", 29_999)
    assert parsed.training_script_args == ["train", "run.toml", "--output_dir", "runs/x"]


def test_cpu_ranks_are_told_so_and_share_the_cores() -> None:
    environment = demo.rank_environment(CPU, {"HOME": "/home/x", "OMP_NUM_THREADS": "64"})
    assert environment == {"HOME": "/home/x", "OMP_NUM_THREADS": "2", "DS_ACCELERATOR": "cpu", "PYTHONSAFEPATH": "1"}
    assert "DS_ACCELERATOR" not in demo.rank_environment(TWO_GPUS, {})


def test_a_signal_reaches_the_ranks_and_the_status_comes_back(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    child = (
        "import pathlib, signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); "
        f"pathlib.Path({str(ready)!r}).touch(); time.sleep(60)"
    )

    def interrupt() -> None:
        while not ready.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    threading.Thread(target=interrupt, daemon=True).start()
    assert demo.run_ranks([sys.executable, "-c", child], os.environ) == 7
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize(
    ("written", "launched", "expected"),
    [
        ({"exit": 75}, 1, 75),
        ({"exit": 0}, 0, 0),
        ({"exit": None, "state": "running"}, 0, 1),
        ({"exit": None, "state": "running"}, -9, 1),
        ({"state": "running"}, 3, 3),
        (None, 0, 1),
        (None, 2, 2),
    ],
)
def test_the_exit_status_is_the_runs_own(
    tmp_path: Path, written: dict[str, object] | None, launched: int, expected: int
) -> None:
    if written is not None:
        (tmp_path / "status.json").write_text(json.dumps(written))
    assert demo.exit_status(tmp_path, launched) == expected


def test_the_table_has_a_row_an_epoch_the_baseline_and_the_places(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_file, run_folder = tmp_path / "demo.toml", tmp_path / "run"
    run_file.write_text('[task]\nname = "paraphrase"\n[data]\nsource = "synthetic"\n')
    run_folder.mkdir()
    history: list[dict[str, object]] = [
        {"step": 63, "epoch": 1.0, "time": 0.0, "loss": 0.61},
        {"step": 63, "epoch": 1.0, "time": 0.0, "split": "validation", "loss": 0.5, "accuracy": 0.8125, "f1": 0.87},
        {"step": 126, "epoch": 2.0, "time": 0.0, "split": "validation", "loss": 0.4, "accuracy": 0.8775, "f1": 0.91},
    ]
    (run_folder / "metrics.jsonl").write_text("".join(json.dumps({"attempt": 1, **line}) + "\n" for line in history))
    demo.print_results(run_file, ["--output_dir", str(run_folder)], run_folder)
    shown = capsys.readouterr().out
    assert "synthetic" in shown.splitlines()[0]
    assert shown.index("0.8125") < shown.index("0.8775") < shown.index("bag of words (baseline)")
    assert str(run_folder / "results.json") in shown
