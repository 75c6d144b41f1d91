"""Tests commands on several nodes at once, and the commands with which the doctor starts its probes."""

import io
import json
import os
import shlex
import signal
import sys
from pathlib import Path

import pytest

from ftsys.config import build_run
from ftsys.errors import LaunchError
from launcher.doctor import probe_entry, run_on_nodes
from launcher.doctor.facts import CheckRequest
from launcher.doctor.probes import _commands, _outputs, _question
from launcher.doctor.requirements import requirements, versions_tested
from launcher.doctor.run_on_nodes import CommandResult, run_together


def test_each_gets_the_text_and_its_output_comes_back_in_order() -> None:
    ended = run_together([["sh", "-c", "sleep 0.2; cat"], ["sh", "-c", "echo no >&2; exit 3"]], "hello", 30)
    assert ended == [CommandResult("hello", "", 0), CommandResult("", "no\n", 3)]


def test_one_that_hangs_is_ended_and_what_it_said_is_kept() -> None:
    (ended,) = run_together([["sh", "-c", "echo so far; exec sleep 60"]], "", 5)
    assert ended == CommandResult("so far\n", "", None)


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(LaunchError, match="'no-such-program' is not found on this machine"):
        run_together([["no-such-program"]], "", 5)


def request(backend: str, *hosts: str) -> CheckRequest:
    return CheckRequest(build_run({"output_dir": "x", "task": {"name": "mrpc"}}), backend, hosts, 12345)


def test_a_probe_is_started_as_the_ranks_are() -> None:
    here = _commands(request("local", "here", "here"), {})
    assert here == [
        ([sys.executable, "-P", "-m", "launcher.doctor.probe_entry", str(number)], (number,)) for number in (0, 1)
    ]
    ssh = _commands(request("hostfile", "node1", "node2"), {"PYTHONPATH": "/a b", "SECRET": "x"})
    words, numbers = ssh[1]
    assert (words[0], words[-3:-1], numbers) == ("ssh", ["--", "node2"], (1,))
    expected = ["env", "PYTHONPATH=/a b", sys.executable, "-P", "-m", "launcher.doctor.probe_entry", "1"]
    assert shlex.split(words[-1].partition(" && exec ")[2]) == expected
    ((words, numbers),) = _commands(request("slurm", "node1", "node2"), {})
    assert (words[0], numbers) == ("srun", (0, 1))
    assert "--ntasks=2" in words
    assert "--kill-on-bad-exit=0" in words
    assert words[-4:] == [sys.executable, "-P", "-m", "launcher.doctor.probe_entry"]
    ((words, numbers),) = _commands(request("slurm", "node1", "node1"), {})
    assert numbers == (0, 1)
    assert {"--nodes=1", "--ntasks=2", "--ntasks-per-node=2"} <= set(words)


def test_under_srun_a_probes_number_is_that_of_its_task(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    question = {"hosts": ["here", "here"], "cpu": True, "environ": {}}
    with monkeypatch.context() as patched:
        patched.setattr("sys.stdin", io.StringIO(json.dumps(question) + "\n"))
        patched.setattr(os, "environ", {"SLURM_NODEID": "0", "SLURM_PROCID": "1"})
        patched.setattr(os, "fork", lambda: 1)
        patched.setattr(os, "dup2", lambda source, _: os.close(source))
        patched.setattr(os, "execv", lambda _, command: started.append(command))
        probe_entry.main([])
    assert [command[-1] for command in started] == ["1"]


@pytest.mark.parametrize("host", ["-oProxyCommand=x", "a;b", "$(x)", ""])
def test_a_host_that_is_no_name_is_refused(host: str) -> None:
    with pytest.raises(LaunchError, match="is not a host name"):
        _commands(request("hostfile", "node1", host), {})


def test_the_question_names_where_to_meet() -> None:
    assert json.loads(_question(request("hostfile", "node1", "node2"), "t", {}))["master"] == "node1"
    assert json.loads(_question(request("local", "here", "here"), "t", {}))["master"] == "127.0.0.1"


def test_facts_of_several_probes_among_other_lines() -> None:
    lines = [
        "Welcome to node1",
        '{"probe": 1, "group": "clock", "facts": 2.0}',
        '{"probe": 0, "group": "clock", "facts": 1.0}',
        '{"probe": 1, "group": "clock", "facts": 3.0}',
        "{broken",
    ]
    found = _outputs((0, 1, 2), CommandResult("\n".join(lines), "oh", None))
    assert [found[number].groups for number in (0, 1, 2)] == [{"clock": 1.0}, {"clock": 3.0}, {}]
    assert (found[2].status, found[2].errors) == (None, "oh")


def test_requirements_are_the_projects_own(repository: Path, tmp_path: Path) -> None:
    found = requirements()
    assert found["transformers"] == "<5.25,>=5.22"
    assert "pytest" not in found
    assert set(found) == set(requirements(tmp_path)), "from the installation, where there is no checkout"
    assert versions_tested()["transformers"] == "5.23.0"
    assert versions_tested()["huggingface-hub"]
    assert versions_tested(tmp_path) == {}


def test_a_program_that_a_killed_one_started_may_hold_its_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ssh's shared connection does."""
    monkeypatch.setattr(run_on_nodes, "LAST_OUTPUT_SECONDS", 0.1)
    note = tmp_path / "pid"
    (ended,) = run_together([["sh", "-c", f"sleep 600 & echo $! > {note}; wait"]], "", 5)
    assert ended == CommandResult("", "", None)
    os.kill(int(note.read_text()), signal.SIGKILL)
