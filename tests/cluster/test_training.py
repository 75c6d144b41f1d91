"""Tests a real training on two hosts over ssh, also with a killed rank on the remote host."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cluster.hosts import Network, wait_for
from tests.end_to_end.commands import environment, ftsys, losses, read_json

pytestmark = pytest.mark.cluster

STEPS = 5
GRADIENT_BYTES = 20_000_000 * 4
"""Less than what one step of the MiniLM model exchanges; the host sends about as much as it receives."""


@pytest.fixture
def folder(tmp_path: Path, minilm_folder: Path) -> Path:
    """Write a hostfile and a run file into a folder: MRPC if FTSYS_GLUE_DIR names it, else the synthetic sample."""
    glue = os.environ.get("FTSYS_GLUE_DIR")
    data = (
        f'[task]\nname = "mrpc"\n[data]\nsource = "{glue}"\n'
        if glue
        else '[task]\nname = "paraphrase"\n[data]\nsource = "synthetic"\n'
    )
    (tmp_path / "run.toml").write_text(
        f'output_dir = "run"\n{data}'
        '[model]\nname = "bundled"\n'
        "[batch]\nglobal_size = 16\n"
        f"[train]\nmax_steps = {STEPS}\neval_every = {STEPS}\nsave_every = {STEPS}\n"
        '[engine]\nprecision = "fp32"\n'
        "[trainer]\nlogging_steps = 1\n"
    )
    (tmp_path / "hosts").write_text("node1 slots=1\nnode2 slots=1\n")
    return tmp_path


def start(network: Network, folder: Path, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "launcher", "run", "run.toml", "--hostfile", "hosts", "--cpu", *words]
    return subprocess.Popen(
        [*network.inside("node1", folder), *command],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ranks_of(folder: Path, rank: int) -> list[int]:
    """Return the rank's own processes, by this machine's process ids."""
    return [pid for pid, words, environ in processes() if _is_rank(pid, words, environ, folder, rank)]


def _is_rank(pid: int, words: Sequence[bytes], environ: Sequence[bytes], folder: Path, rank: int) -> bool:
    inside = Path(f"/proc/{pid}/cwd").readlink() == folder
    return inside and b"\0-m\0ftsys\0train\0" in b"\0".join(words) and f"RANK={rank}".encode() in environ


def processes() -> list[tuple[int, list[bytes], list[bytes]]]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words, environ = ((path / name).read_bytes().split(b"\0") for name in ("cmdline", "environ"))
        except OSError:
            continue
        found.append((int(path.name), words, environ))
    return found


def test_two_hosts_train_together_and_find_what_one_process_finds(network: Network, folder: Path) -> None:
    before = network.sent_bytes("node2")
    process = start(network, folder)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "starts 2 CPU ranks on node1, node2" in err
    assert "results.json" in out
    assert network.sent_bytes("node2") - before > STEPS * GRADIENT_BYTES
    results = read_json(folder / "run/results.json")
    assert (results["world_size"], results["steps"]) == (2, STEPS)
    assert read_json(folder / "run/owner.json")["host"] == "node1"
    alone = ftsys("train", "run.toml", "--output_dir", "alone", cwd=folder)
    assert alone.returncode == 0, alone.stderr
    assert losses(folder / "run") == pytest.approx(losses(folder / "alone"), rel=1e-5)
    expected = read_json(folder / "alone/results.json")["metrics"]["validation"]
    assert results["metrics"]["validation"] == pytest.approx(expected, rel=1e-4)


def test_a_killed_rank_on_the_far_host_ends_the_run(network: Network, folder: Path) -> None:
    process = start(network, folder, "--train.max_steps", "1000", "--train.eval_every", "never")
    metrics = folder / "run/metrics.jsonl"
    wait_for(lambda: metrics.exists() or process.poll() is not None, seconds=200)
    (pid,) = ranks_of(folder, 1)
    os.kill(pid, signal.SIGKILL)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 1, err
    last = err.splitlines()[-1]
    assert last.startswith("error: rank 1 on node2 was killed by SIGKILL")
    assert last.endswith(f"its log: {folder}/run/logs/rank-1.log")
    status = read_json(folder / "run/status.json")
    assert (status["state"], status["exit"]) == ("failed", 1)
    assert "rank 1 died (host node2" in status["reason"]
    assert [rank for rank in (0, 1) if ranks_of(folder, rank)] == []
