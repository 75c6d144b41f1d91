"""Tests the Triton attention as machine code for real GPUs, compiled as a launch compiles it; no GPU is needed.

`ftsys bench kernels` does the same for all GPUs, head sizes and dtypes; these are those that were nearest to a limit.
"""

import os
import re
from typing import Any

import pytest
import torch

pytest.importorskip(
    "triton", "3.9", reason="Triton 3.9 is not installed (make test runs this file with it; compilers before it spill)"
)
if os.environ.get("TRITON_INTERPRET"):
    pytest.skip("the interpreter compiles nothing (make test runs this file without it, too)", allow_module_level=True)

from ftsys.bench.kernel_parts.capture import Launch, compiling_for
from ftsys.bench.kernel_parts.cases import attention
from ftsys.bench.kernel_parts.machine_code import machine_code
from ftsys.bench.kernels import limits_of, times_computed
from ftsys.kernels.pattern import PLAIN, Pattern
from ftsys.kernels.triton_attention.tiles import SHARED_BYTES

BF16, LOCAL = torch.bfloat16, Pattern(causal=True, window=20)
CASES = [
    *((80, size, BF16, PLAIN) for size in (32, 64, 128)),
    *((90, size, BF16, PLAIN) for size in (32, 64, 96, 128)),
    *((100, size, BF16, PLAIN) for size in (32, 64, 128)),
    (89, 32, BF16, PLAIN),
    (89, 128, BF16, PLAIN),
    (86, 128, torch.float16, PLAIN),
    (89, 96, BF16, LOCAL),
    (89, 256, BF16, PLAIN),
    (90, 256, BF16, PLAIN),
]


def launches_of(capability: int, size: int, dtype: torch.dtype = BF16, pattern: Pattern = PLAIN) -> list[Launch]:
    with compiling_for(capability) as launches:
        attention(size, dtype, True, pattern)
    return launches


@pytest.mark.parametrize(("capability", "size", "dtype", "pattern"), CASES, ids=lambda value: str(value)[:14])
def test_nothing_is_spilled_or_computed_twice(capability: int, size: int, dtype: torch.dtype, pattern: Pattern) -> None:
    launches = launches_of(capability, size, dtype, pattern)
    assert [each.kernel for each in launches] == ["mask_bits", "forward", "query_gradients", "key_gradients"]
    for launch in launches:
        code = machine_code(launch.binary)
        assert code.spilled_bytes <= limits_of(f"head {size}")["spilled bytes"], launch.kernel
        assert code.shared_bytes <= SHARED_BYTES[capability], launch.kernel
        if launch.kernel != "mask_bits":
            assert code.matrix_instructions > 0
            assert code.narrow_global_loads == 0  # masks are read as bits
            assert size == 256 or times_computed(launch, code) in (1.0, None)


def test_hopper_and_blackwell_use_their_own_matrix_units() -> None:
    for capability, instruction in ((90, "wgmma.mma_async"), (100, "tcgen05.mma")):
        for launch in launches_of(capability, 64)[1:]:
            assert instruction in launch.binary.asm["ptx"], launch.kernel


def test_float32_fits_the_smallest_shared_memory() -> None:
    for launch in launches_of(89, 128, torch.float32):
        assert machine_code(launch.binary).shared_bytes <= SHARED_BYTES[89], launch.kernel


def test_they_are_compiled_as_a_launch_compiles_them() -> None:
    """Triton must know of the addresses of torch's tensors that they are multiples of 16."""
    forward = launches_of(90, 64)[1].binary
    pointers = re.findall(r"%(\w+): !tt\.ptr<\w+> ?(\{[^}]*\})?", forward.asm["ttir"].partition(") attributes")[0])
    declared = {name: attributes for name, attributes in pointers if name in ("query", "key", "value", "bits", "logs")}
    assert len(declared) == 5
    assert all("tt.divisibility = 16" in attributes for attributes in declared.values())
    assert not re.search(r"ld\.global[.\w]*\.b16", forward.asm["ptx"])  # rows are read 16 bytes at a time


@pytest.mark.parametrize("kernel", range(4))
def test_places_after_2_to_the_31_elements_are_computed_in_64_bits(kernel: int) -> None:
    """A batch's token times a row's size may pass 2**31: what comes from a sequence's start is widened first."""
    binary = launches_of(80, 64)[kernel].binary
    assert narrow_products_of_starts(binary.asm["ttir"]) == []


def narrow_products_of_starts(ir: str) -> list[str]:
    """Return the 32-bit products and pointer offsets made of a number loaded from `bounds`; lengths may be in them."""
    pointers, starts, found = {"%bounds"}, set[str](), []
    for name, operation, rest in re.findall(r"^\s*(%\w+) = ([\w.]+)(.*)$", ir, re.MULTILINE):
        read = set(re.findall(r"%\w+", rest))
        if read & pointers:
            (starts if operation == "tt.load" else pointers).add(name)
        elif read & starts and operation not in ("arith.subi", "arith.extsi"):  # a length, and a widened start
            starts.add(name)
            if operation in ("arith.muli", "tt.addptr"):
                found.append(f"{name} = {operation}{rest}")
    return found


def test_the_check_of_places_finds_a_narrow_one() -> None:
    ir = """
    %at = tt.addptr %bounds, %0 : !tt.ptr<i32>, i32
    %start = tt.load %at : !tt.ptr<i32>
    %1 = arith.muli %start, %stride : i32
    """
    assert len(narrow_products_of_starts(ir)) == 1
    assert narrow_products_of_starts(ir.replace("%1 = arith.muli %start", "%1 = arith.extsi %start")) == []


def test_a_launch_of_other_kernels_is_captured_with_its_arguments() -> None:
    launch: Any = launches_of(80, 64)[1]
    assert (launch.arguments["OWN"], launch.arguments["num_warps"]) == (64, 4)
