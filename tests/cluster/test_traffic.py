"""Compares the bytes that a host sends in a step, counted at its interface, with the planner's number."""

import itertools
import json
import statistics
import time
from pathlib import Path

import pytest

from tests.cluster.hosts import Network
from tests.cluster.test_training import start
from tests.end_to_end.commands import read_json, write_run_file

pytestmark = pytest.mark.cluster

STEPS, FIRST = 9, 3
"""Number of training steps; those before FIRST also contain traffic that occurs only once."""


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_wire_carries_what_the_planner_says(
    network: Network, tmp_path: Path, minilm_folder: Path, stage: int
) -> None:
    write_run_file(tmp_path)
    (tmp_path / "hosts").write_text("node1 slots=1\nnode2 slots=1\n")
    asked = {"engine.backend": "deepspeed", "engine.precision": "bf16", "engine.zero_stage": stage}
    asked |= {
        "train.max_steps": STEPS,
        "train.eval_every": "never",
        "train.save_every": "never",
        "batch.global_size": 4,
    }
    words = [word for key, value in asked.items() for word in (f"--{key}", str(value))]
    process = start(network, tmp_path, *words)
    counted: dict[int, int] = {}
    while process.poll() is None:
        step = _last_step(tmp_path / "run/metrics.jsonl")
        if step not in counted:  # a step is always logged at the same point of it
            counted[step] = network.sent_bytes("node2")
        time.sleep(0.002)
    _, err = process.communicate()
    assert process.returncode == 0, err
    steps = [step for step in sorted(counted) if step >= FIRST]
    assert len(steps) >= 4, counted
    sent = statistics.median((counted[b] - counted[a]) / (b - a) for a, b in itertools.pairwise(steps))
    predicted = read_json(tmp_path / "run/plan.json")["predicted"]["sent_bytes"]
    print(json.dumps({"stage": stage, "sent": sent, "predicted": predicted, "ratio": sent / predicted}))
    assert sent == pytest.approx(predicted, rel=0.2)


def _last_step(metrics: Path) -> int:
    if not metrics.exists():
        return 0
    lines = metrics.read_text().splitlines()
    try:
        return int(json.loads(lines[-1])["step"]) if lines else 0
    except ValueError:  # half a line
        return 0
