"""The memory model against live tensors of two ranks under DeepSpeed: what `ftsys bench memory` does, on two cases."""

import pytest

from ftsys.bench.memory import TOLERANCE
from ftsys.bench.memory_parts.cases import Case
from launcher.planner.cost.activations import MicroBatch
from launcher.planner.cost.memory import Setting


@pytest.mark.long
@pytest.mark.parametrize(("stage", "offload"), [(2, "none"), (3, "optimizer")])
def test_predicted_and_measured_agree(stage: int, offload: str) -> None:
    setting = Setting("deepspeed", stage, "bf16", offload, False, 2, "cpu")
    case = Case("MiniLM-L6", setting, MicroBatch(256, 64))
    measured = case.measured()
    assert case.predicted_bytes == pytest.approx(measured["total"], rel=TOLERANCE)
    assert measured["weights"] > 0
    assert measured["optimizer"] > 0
