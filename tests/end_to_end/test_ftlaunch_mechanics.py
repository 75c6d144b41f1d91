"""Tests `ftlaunch run` when ranks die, hang, fail, are interrupted or never start. Without torch: see
tests/fake_ranks.py."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fake_ranks import Launch, launch, processes_of

ANNOUNCED = re.compile(
    r"^ftlaunch: local \(no SLURM allocation, no hostfile\): torchrun starts 2 CPU ranks, .*, port \d+$"
)

SIGNED = "sign(str(os.getpid()))\n"
FOREVER = SIGNED + "time.sleep(1000)\n"
SAVES = """
got = []
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda number, frame: got.append(number))
sign(str(os.getpid()))
while not got:
    time.sleep(0.01)
time.sleep(0.3)
sign(" ".join(signal.Signals(number).name for number in got))
sys.exit(75)
"""


def both_signed(launched: Launch) -> bool:
    return all(launched.signs(rank) for rank in (0, 1))


def test_a_good_end(tmp_path: Path) -> None:
    program = "print('result of', RANK)\nprint('note of', RANK, file=sys.stderr)\n"
    status, out, err = launch(tmp_path, program, "--train.seed", "7").end()
    assert (status, out) == (0, "result of 0\n")
    announced, *rest = err.splitlines()
    assert ANNOUNCED.match(announced)
    assert rest == ["note of 0"]
    logs = tmp_path / "run/logs"
    assert sorted(path.name for path in logs.iterdir()) == ["node-0.log", "rank-0.log", "rank-1.log"]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["logs"]
    for rank in (0, 1):
        title, *lines = (logs / f"rank-{rank}.log").read_text().splitlines()
        assert title.startswith("---- ")
        assert title.endswith(f"rank {rank}")
        assert sorted(lines) == [f"note of {rank}", f"result of {rank}"]
    assert "torchrun's own noise" in (logs / "node-0.log").read_text()
    assert processes_of(tmp_path) == []


def test_the_ranks_have_threads_cores_and_words(tmp_path: Path) -> None:
    told = ("os.environ['OMP_NUM_THREADS']", "str(sorted(os.sched_getaffinity(0)))", "repr(sys.orig_argv[-5:])")
    program = "".join(f"sign({what})\n" for what in told)
    launched = launch(tmp_path, program, "--overwrite", "--train.seed", "7")
    assert launched.end()[0] == 0
    threads, cpus, words = launched.signs(0)
    assert threads.isdecimal()
    assert words == repr(["train", "run.toml", "--overwrite", "--train.seed", "7"])
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) >= 2:
        assert cpus != launched.signs(1)[1]
        assert cpus != str(allowed)


def test_logs_are_added_to(tmp_path: Path) -> None:
    for text in ("first", "second"):
        assert launch(tmp_path, f"print('{text}')").end()[0] == 0
    lines = (tmp_path / "run/logs/rank-1.log").read_text().splitlines()
    assert [line for line in lines if not line.startswith("---- ")] == ["first", "second"]
    assert len(lines) == 4


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_others(tmp_path: Path, rank: int) -> None:
    launched = launch(tmp_path, FOREVER)
    launched.wait_for(both_signed)
    os.kill(int(launched.signs(rank)[0]), signal.SIGKILL)
    status, _, err = launched.end()
    assert status == 1
    last = err.splitlines()[-1]
    assert re.search(rf"error: rank {rank} on \S+ was killed by SIGKILL", last)
    assert last.endswith(f"its log: {tmp_path}/run/logs/rank-{rank}.log")
    assert processes_of(tmp_path) == []


def test_ranks_that_ignore_everything_are_killed(tmp_path: Path) -> None:
    deaf = "for number in (1, 2, 10, 15):\n    signal.signal(number, signal.SIG_IGN)\n"
    launched = launch(tmp_path, f"{deaf}if RANK:\n    sys.exit(3)\n{FOREVER}")
    status, _, err = launched.end()
    assert status == 3
    assert "error: rank 1 on" in err.splitlines()[-1]
    assert processes_of(tmp_path) == []


def test_the_first_failing_ranks_own_error_is_the_last_thing_said(tmp_path: Path) -> None:
    first = "if RANK:\n    raise RuntimeError('boom')\n"
    later = (
        "while not os.path.exists(FOLDER + '/sign-9'):\n    time.sleep(0.01)\nraise RuntimeError('the peer is gone')\n"
    )
    launched = launch(tmp_path, first + later)
    log = tmp_path / "run/logs/rank-1.log"
    launched.wait_for(lambda _: log.exists() and "boom" in log.read_text())
    (tmp_path / "sign-9").touch()
    status, _, err = launched.end()
    assert status == 1
    assert err.splitlines()[-2:] == [
        "RuntimeError: boom",
        f"error: rank 1 on {socket.gethostname()} ended with status 1; its log: {log}",
    ]


def test_a_message_of_all_ranks_is_shown_once(tmp_path: Path) -> None:
    program = "if RANK == 0:\n    print('error: no such model', file=sys.stderr)\nsys.exit(2)\n"
    status, _, err = launch(tmp_path, program).end()
    assert status == 2
    assert err.count("no such model") == 1
    assert "error: rank 0 on" in err.splitlines()[-1]


def test_the_same_traceback_is_not_shown_for_each_rank(tmp_path: Path) -> None:
    status, _, err = launch(tmp_path, "raise RuntimeError('the same')\n").end()
    assert status == 1
    assert err.count("RuntimeError: the same") == 1


@pytest.mark.parametrize(
    ("sent", "received"),
    [("SIGINT", "SIGINT"), ("SIGTERM", "SIGTERM"), ("SIGUSR1", "SIGUSR1"), ("SIGHUP", "SIGTERM")],
)
def test_a_signal_reaches_every_rank_once(tmp_path: Path, sent: str, received: str) -> None:
    launched = launch(tmp_path, SAVES)
    launched.wait_for(both_signed)
    launched.send(signal.Signals[sent])
    status, _, err = launched.end()
    assert status == 75
    assert [launched.signs(rank)[1:] for rank in (0, 1)] == [[received], [received]]
    assert len(err.splitlines()) == 1, "rank 0 says why; ftlaunch adds nothing"
    assert processes_of(tmp_path) == []


def test_a_signal_before_a_rank_can_handle_it(tmp_path: Path) -> None:
    launched = launch(tmp_path, FOREVER)
    launched.wait_for(both_signed)
    launched.send(signal.SIGTERM)
    status, _, err = launched.end()
    assert status == 75
    assert "error: stopped by SIGTERM before training began: start the same command again." in err


def test_a_second_ctrl_c_ends_ranks_that_do_not_leave(tmp_path: Path) -> None:
    launched = launch(tmp_path, "signal.signal(2, signal.SIG_IGN)\n" + FOREVER)
    launched.wait_for(both_signed)
    launched.send(signal.SIGINT)
    time.sleep(1.5)
    assert launched.process.poll() is None
    for _ in range(60):  # one that comes soon after the first counts as the same: how soon, depends on the load
        launched.send(signal.SIGINT)
        time.sleep(0.5)
        if launched.process.poll() is not None:
            break
    status, _, err = launched.end()
    assert status == 1
    assert "second Ctrl-C: killing the ranks" in err
    assert processes_of(tmp_path) == []


def test_nothing_outlives_ftlaunch(tmp_path: Path) -> None:
    launched = launch(tmp_path, SAVES)
    launched.wait_for(both_signed)
    launched.send(signal.SIGKILL)
    deadline = time.monotonic() + 90
    while processes_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(tmp_path) == []
    assert [launched.signs(rank)[1:] for rank in (0, 1)] == [["SIGTERM"], ["SIGTERM"]]
    launched.process.communicate()


def test_what_a_rank_leaves_behind_is_ended(tmp_path: Path) -> None:
    starts = "".join(f"subprocess.Popen(['sleep', '1000'], start_new_session={own})\n" for own in (True, False))
    assert launch(tmp_path, "import subprocess\n" + starts).end()[0] == 0
    assert processes_of(tmp_path) == []


def test_a_terminal_stays_one_for_rank_0(tmp_path: Path) -> None:
    master, slave = os.openpty()
    program = (
        "sign(str([os.isatty(1), os.isatty(2)]))\nprint('10%\\r20%')\nprint('\\x1b[1mbold\\x1b[0m', file=sys.stderr)\n"
    )
    launched = launch(tmp_path, program, terminal=slave)
    os.close(slave)
    shown = b""
    while b"bold" not in shown:
        shown += os.read(master, 1000)
    assert launched.end()[0] == 0
    os.close(master)
    assert [launched.signs(rank) for rank in (0, 1)] == [["[True, True]"], ["[False, False]"]]
    assert b"10%\r20%\r\n" in shown
    assert (tmp_path / "run/logs/rank-0.log").read_text().splitlines()[1:] == ["20%", "bold"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--batch.global_size", "1"],
            "error: batch.global_size=1 has fewer examples in a step than there are ranks (2)",
        ),
        (["--engine.precision", "fp16"], "error: engine.precision='fp16' cannot be computed on a CPU"),
        (["--train.sed", "1"], "error: train.sed=1 is not a known key"),
        (["--nodes", "2"], "error: 2 nodes were requested, but there is only 1 in this machine; --hostfile FILE names"),
        (["--nodes", "0"], "error: --nodes 0 is too small"),
        (["--hostfile", "no-such-file"], "error: hostfile 'no-such-file' cannot be read (No such file or directory)"),
        (["--backend", "slurm"], "error: the slurm backend works inside an allocation"),
        (["--output_dir", "/dev/null/x"], "error: output_dir='/dev/null/x' cannot be written (Not a directory)"),
        (["--port", "0"], "error: --port 0 is not a port"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_started(tmp_path: Path, words: list[str], said: str) -> None:
    status, out, err = launch(tmp_path, "sign('started')", *words).end()
    assert (status, out) == (2, "")
    assert err.startswith(said)
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "sign-0").exists()


def test_a_named_port_that_is_in_use(tmp_path: Path) -> None:
    with socket.create_server(("", 0)) as listener:
        port = listener.getsockname()[1]
        status, _, err = launch(tmp_path, "sign('started')", "--port", str(port)).end()
    assert status == 2
    assert err == f"error: port {port} is in use on {socket.gethostname()}: name another, or leave --port out.\n"
    assert not (tmp_path / "sign-0").exists()


def test_a_busy_port_of_the_job_is_passed_over(tmp_path: Path) -> None:
    ports = []
    for _ in range(2):
        status, _, err = launch(tmp_path, "pass").end()
        assert status == 0
        ports.append(int(err.split()[-1]))
    assert ports[0] == ports[1], "a job has its own port"
    with socket.create_server(("", ports[0])):
        _, _, err = launch(tmp_path, "pass").end()
    assert int(err.split()[-1]) != ports[0]


def test_a_start_that_comes_to_nothing(tmp_path: Path) -> None:
    launched = launch(tmp_path, "pass", torchrun="raise OSError('no rendezvous')")
    status, _, err = launched.end()
    assert status == 1
    assert err.splitlines()[-2:] == [
        "OSError: no rendezvous",
        f"error: no rank was started on {socket.gethostname()}; see the logs in {tmp_path}/run/logs",
    ]


def test_a_hostfile_with_bad_lines(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("node1 slots=1\n-oProxyCommand=x slots=1\n")
    status, _, err = launch(tmp_path, "pass", "--hostfile", "hosts").end()
    assert status == 2
    assert err.startswith("error: hostfile 'hosts', line 2: '-oProxyCommand=x' is not a host name")


def test_no_torch_is_loaded_by_what_runs_around_the_ranks() -> None:
    code = (
        "import sys, launcher.agent.__main__, launcher.agent.rank\n"
        "heavy = {'torch', 'pydantic', 'numpy', 'psutil', 'transformers'} & set(sys.modules)\n"
        "sys.exit(' '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
