"""Tests `ftlaunch doctor` with real probes: on this machine, and on two "hosts" behind a stand-in for ssh."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.commands import call, write_run_file

# These tests may run beside others on two cores, where importing torch alone takes as long as all is to take.
PATIENT = ("--seconds", "120")

# Every host is this machine; `localhost` has another transformers, `gone` refuses.
SSH = """#!/bin/bash
line="${@: -1}"
case "${@: -2:1}" in
  gone) echo "ssh: connect to host gone port 22: Connection refused" >&2; exit 255 ;;
  localhost) export PYTHONPATH=OTHER ;;
esac
echo "Welcome to a machine with a talkative shell"
exec sh -c "$line"
"""


@pytest.fixture
def hosts(tmp_path: Path) -> dict[str, str]:
    """An environment whose ssh is the stand-in."""
    other = tmp_path / "other/transformers-4.57.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 4.57.1\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ssh").write_text(SSH.replace("OTHER", str(other.parent)))
    (tmp_path / "bin/ssh").chmod(0o755)
    return {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "TORCH_EXTENSIONS_DIR": str(tmp_path / "extensions")}


def doctor(folder: Path, *words: str | Path, **more: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """The command's end, and the worst finding's (severity, value) by what it is about."""
    run_file = write_run_file(folder)
    ended = call(sys.executable, "-m", "launcher", "doctor", run_file, "--json", *words, cwd=folder, **more)
    assert ended.stdout, ended.stderr
    found: dict[str, Any] = {}
    for each in json.loads(ended.stdout)["findings"]:
        found.setdefault(each["what"], []).append((each["severity"], each["value"]))
    order = ["ok", "warning", "error"]
    return ended, {what: max(values, key=lambda one: order.index(one[0])) for what, values in found.items()}


def test_a_machine_that_is_well(tmp_path: Path, minilm_folder: Path) -> None:
    ended, found = doctor(tmp_path, "--cpu", "--gpus-per-node", "2", "--backend", "local", *PATIENT)
    bad = {what: value for what, (severity, value) in found.items() if severity == "error"}
    assert (ended.returncode, bad) == (0, {}), ended.stderr
    assert found["all-reduce"][1].startswith("gloo, 16 MB: ")
    assert found["plan"][1].startswith("2 cpu rank(s), ddp, ZeRO 0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.toml"], "it leaves nothing behind"


def test_hosts_with_other_versions_and_a_stale_lock(tmp_path: Path, minilm_folder: Path, hosts: dict[str, str]) -> None:
    (tmp_path / "hosts").write_text("127.0.0.1 slots=1\nlocalhost slots=1\n")
    lock = tmp_path / "extensions/cpu_adam/lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    words = ["--cpu", "--hostfile", "hosts", "--backend", "hostfile", "--engine.precision", "fp16"]
    ended, found = doctor(tmp_path, *words, "--train.save_keep", "1000000000", *PATIENT, **hosts)
    assert ended.returncode == 2
    assert found["node"] == ("ok", "2 of 2 answer (hostfile): 127.0.0.1, localhost")
    assert found["transformers"] == ("error", "4.57.1 on localhost, ftsys needs <5.25,>=5.22")
    assert found["plan"][0] == "error"
    assert "fp16" in found["plan"][1]
    assert found["disk"][0] == "warning", found["disk"]
    assert found["locks"][0] == "warning"
    assert f"{lock} on 127.0.0.1, localhost: left by a dead process" in found["locks"][1]
    assert found["rendezvous"][0] == found["clocks"][0] == found["output_dir"][0] == "ok"
    assert found["all-reduce"][1].startswith("gloo, 16 MB: ")
    assert "is shared by 2 nodes" in found["output_dir"][1]
    assert lock.exists(), "nothing is mended unasked"
    assert list(tmp_path.rglob(".ftsys-doctor-*")) == []


def test_a_host_that_refuses_and_a_model_that_is_not_there(tmp_path: Path, hosts: dict[str, str]) -> None:
    (tmp_path / "hosts").write_text("127.0.0.1 slots=1\ngone slots=1\n")
    words = ["--cpu", "--hostfile", "hosts", "--backend", "hostfile", "--model.name", "./no-model", *PATIENT]
    ended, found = doctor(tmp_path, *words, **hosts)
    assert ended.returncode == 2
    assert found["node"][0] == "error"
    assert found["node"][1].startswith("gone does not answer: ssh: connect to host gone port 22: Connection refused")
    assert found["rendezvous"] == ("error", "gone did not take part")
    assert found["model"][0] == "error"
    assert "'./no-model'" in found["model"][1]
    assert found["packages"][0] == "ok"
