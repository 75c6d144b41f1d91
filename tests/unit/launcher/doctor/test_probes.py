"""Tests what is taken from a probe's output: whole lines of its facts, and nothing else."""

import json

import pytest

from launcher.doctor import probes
from launcher.doctor.facts import CheckRequest
from launcher.doctor.run_on_nodes import CommandResult
from tests.unit.launcher.doctor.made_up_facts import run_of


def line(number: int, group: str) -> str:
    return json.dumps({"probe": number, "group": group, "facts": {"cores": 2}})


@pytest.mark.parametrize(
    "more",
    [
        "Welcome to node0",
        line(0, "network")[:-3],
        line(7, "network"),
        '{"probe": "0", "group": "network", "facts": 1}',
        '{"probe": 0}',
        '{"probe": ' + "[" * 100_000,
    ],
)
def test_only_whole_lines_of_the_asked_probes_are_facts(monkeypatch: pytest.MonkeyPatch, more: str) -> None:
    output = "\n".join([line(0, "machine"), more])
    monkeypatch.setattr(probes, "run_together", lambda *_: [CommandResult(output, "killed", None)])
    found = probes.collect_facts(CheckRequest(run_of(), "local", ("node0",), 12345), {})
    assert (found.outputs[0].groups, found.outputs[0].status) == ({"machine": {"cores": 2}}, None)
