"""Tests the automatic precision of a CPU whose rates were measured."""

from launcher.planner.plan import World, make_plan
from launcher.planner.world import ProductRates
from tests.unit.launcher.planner.test_plan import run_of


def test_the_precision_of_a_cpu_that_was_measured() -> None:
    slow, fast = ProductRates(100e9, 40e9), ProductRates(100e9, 210e9)
    rates = "40 GFLOP/s in bf16 and 100 in fp32"
    plan = make_plan(run_of(), World(bf16_supported=False, rates=slow))
    assert (plan.precision, plan.reasons["precision"]) == (
        "fp32",
        f"this CPU multiplies matrices at {rates}, as measured",
    )
    assert make_plan(run_of(), World(bf16_supported=True, rates=fast)).precision == "bf16"
    forced = make_plan(run_of(engine={"precision": "bf16"}), World(bf16_supported=False, rates=slow))
    assert forced.notes == (f"the CPU was measured at {rates}: expect bf16 to be slower than fp32",)
