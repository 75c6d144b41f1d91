"""Tests that the Triton attention compiles for real GPUs and fits their shared memory; no GPU is needed."""

import os
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton is not installed (make test runs this file with it)")
if os.environ.get("TRITON_INTERPRET"):
    pytest.skip("the interpreter compiles nothing (make test runs this file without it, too)", allow_module_level=True)

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ftsys.kernels import triton_attention

SHARED_BYTES = {80: 163 << 10, 89: 99 << 10, 90: 227 << 10}
"""What a program may use, by compute capability: A100, RTX 40, H100 and H200 (CUDA programming guide, table 27)."""
KERNELS = (triton_attention._forward, triton_attention._key_gradients, triton_attention._query_gradients)
CASES = [
    ("*bf16", 64, True, False),
    ("*bf16", 96, False, True),
    ("*bf16", 128, True, False),
    ("*fp32", 128, True, True),
    ("*fp32", 12, False, False),
]
TYPES = {
    "*i32": ("bounds", "one", "other"),
    "*i16": ("first", "second"),
    "*fp32": ("logs", "sums"),
    "i32": ("heads", "groups", "lowest", "reach"),
    "fp32": ("scale", "kept"),
}


def compiled(kernel: Any, capability: int, state: str, width: int, drops: bool, hides: bool) -> Any:
    padded = triton_attention.padded_size(width)
    block = triton_attention.rows_of_block(padded, 2 if state == "*bf16" else 4)
    constants = {"DROPS": drops, "CAUSAL": hides, "WINDOWED": hides, "WIDTH": width, "SIZE": padded, "BLOCK": block}
    types = {name: kind for kind, names in TYPES.items() for name in names} | dict.fromkeys(constants, "constexpr")
    signature = {name: types.get(name, state) for name in kernel.arg_names}
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(ASTSource(kernel, signature, constants), target, {"num_warps": triton_attention.WARPS})


@pytest.mark.parametrize("capability", list(SHARED_BYTES))
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)
def test_it_compiles_and_fits_shared_memory(kernel: Any, capability: int) -> None:
    for case in CASES:
        binary = compiled(kernel, capability, *case)
        assert binary.asm["cubin"]
        assert binary.metadata.shared <= SHARED_BYTES[capability], case
    if capability == 90:
        assert "wgmma" in compiled(kernel, capability, *CASES[0]).asm["ptx"]  # Hopper's own matrix units
