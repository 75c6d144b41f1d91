"""Tests the Triton kernels of keys, dropout and norms as machine code for real GPUs; no GPU is needed.

They are compiled as a launch compiles them. `ftsys bench kernels` does the same for all widths and dtypes.
"""

import os

import pytest
import torch

pytest.importorskip(
    "triton", "3.9", reason="Triton 3.9 is not installed (make test runs this file with it; compilers before it spill)"
)
if os.environ.get("TRITON_INTERPRET"):
    pytest.skip("the interpreter compiles nothing (make test runs this file without it, too)", allow_module_level=True)

from ftsys.bench.kernel_parts.capture import Launch, compiling_for
from ftsys.bench.kernel_parts.cases import Case, cases
from ftsys.bench.kernel_parts.machine_code import machine_code
from ftsys.bench.kernels import CAPABILITIES, limits_of

CASES = [case for case in cases(heads=(), widths=(768, 4096)) if case.name != "width 768 RMSNorm"]
NORM = ["add_norm", "add_norm_gradients", "sum_blocks"]
KERNELS = {"keys": ["token_keys", "head_windows"], "dropout": ["drop", "drop"], "LayerNorm": NORM, "RMSNorm": NORM}


def of(case: Case, capability: int) -> list[Launch]:
    with compiling_for(capability) as launches:
        case.launch(torch.bfloat16, "RMS" not in case.name)
    return launches


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_they_spill_nothing_and_leave_room_for_many_threads(capability: int, case: Case) -> None:
    launches = of(case, capability)
    assert [each.kernel for each in launches] == KERNELS[case.name.split()[-1]]
    for launch in launches:
        code, limits = machine_code(launch.binary), limits_of(case.name)
        assert code.registers <= limits["registers"], launch.kernel
        assert code.spilled_bytes <= limits["spilled bytes"], launch.kernel
        # One number of each column at most, for the sums over warps: 16 KiB for 4,096 columns.
        assert code.shared_bytes <= 4 * launch.arguments.get("BLOCK", 0) or launch.kernel == "sum_blocks"
        # Only the mask's numbers, of which two windows begin anywhere, are read one by one: 8 of each a thread.
        assert code.narrow_global_loads == (16 if launch.arguments.get("DROPS", launch.kernel == "drop") else 0)


def test_a_batch_of_another_size_and_another_site_take_the_same_programs() -> None:
    """Triton would make others for numbers that are 1 or multiples of 16: a step would stop to compile, for seconds."""
    varying = {"offset", "rows", "rows_of_block", "blocks", "count"}
    launches = [launch for case in CASES if case.name in ("keys", "width 768 LayerNorm") for launch in of(case, 90)]
    found = [
        (launch.kernel, name)
        for launch in launches
        for place, name in enumerate(launch.binary.src.fn.arg_names)
        if name in varying and (launch.binary.src.signature[name] == "constexpr" or (place,) in launch.binary.src.attrs)
    ]
    assert (len(launches), found) == (5, [])
