"""A golden loss curve: no change alters what training computes unless it says so by writing the curve anew."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.parity.train.golden_curve import GOLDEN, STEPS

# Another CPU's vector width, or the kernels of a machine without a compiler, change the last bits; bf16 rounds them up
# to something that can be seen.
TOLERANCE = {"fp32": 1e-4, "bf16": 5e-2}


@pytest.fixture(scope="module")
def curves(repository: Path) -> list[dict[str, Any]]:
    """The curves of two fresh processes, run at the same time."""
    program = (  # as ranks start, without what transformers imports for other models
        "from ftsys.fast_import.hooks import begin_fast_import; begin_fast_import(); "
        "from tests.parity.train.golden_curve import main; main()"
    )
    command = [sys.executable, "-c", program]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(command, cwd=repository, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said[0][1].decode()[-3000:]
    lines = [next(line for line in out.decode().splitlines() if line.startswith("curves ")) for out, _ in said]
    return [json.loads(line.removeprefix("curves ")) for line in lines]


def test_two_processes_agree_bit_for_bit(curves: list[dict[str, Any]]) -> None:
    assert curves[0] == curves[1]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_curve_is_the_committed_one(curves: list[dict[str, Any]], precision: str) -> None:
    golden = json.loads(GOLDEN.read_text())[precision]
    assert len(golden["losses"]) == len(golden["norms"]) == STEPS
    for name in ("losses", "norms"):
        assert curves[0][precision][name] == pytest.approx(golden[name], rel=TOLERANCE[precision]), (
            "if this is meant: python -m tests.parity.train.golden_curve --write"
        )


def test_the_curve_learns() -> None:
    losses = json.loads(GOLDEN.read_text())["fp32"]["losses"]
    assert sum(losses[-5:]) < sum(losses[:5])
