"""Tests that the Triton kernels of keys, dropout and norms compile for real GPUs, without spills; no GPU is needed."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton is not installed (make test runs this file with it)")
if os.environ.get("TRITON_INTERPRET"):
    pytest.skip("the interpreter compiles nothing (make test runs this file without it, too)", allow_module_level=True)

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

from ftsys.kernels.triton_layers import keys, norm
from ftsys.kernels.triton_layers.dropout import _drop, row_constants

CAPABILITIES = (80, 86, 89, 90, 100)
WIDTHS = (384, 768, 1024, 4096)
TYPES = {
    "*i64": ("keys", "examples", "positions", "offsets"),
    "*i32": ("bounds", "one", "other"),
    "*i16": ("first", "second"),
    "*fp32": ("stats", "parts"),
    "i64": ("offset", "start"),
    "i32": ("lowest", "rows", "rows_of_block", "blocks", "count", "heads"),
    "fp32": ("kept", "epsilon", "added"),
}
ALL = {"BIASED": True, "DROPS": True, "ADDS": True, "CENTERED": True, "SHIFTS": True}
NONE = dict.fromkeys(ALL, False)
BACKWARD = {"TWIN": True, "SHARES": False}
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "token keys": (keys._token_keys, {"BLOCK": keys.BLOCK}),
    "head windows": (keys._head_windows, {"BLOCK": keys.BLOCK}),
    "sum of blocks": (norm._sum_blocks, {"WIDTH": 2304, "BLOCK": norm.SUMMED}),
    **{f"dropout {width}": (_drop, row_constants(width)) for width in WIDTHS},
    **{f"norm {width}": (norm._add_norm, ALL | row_constants(width)) for width in WIDTHS},
    **{f"RMS norm {width}": (norm._add_norm, NONE | row_constants(width)) for width in WIDTHS},
    **{f"gradients {width}": (norm._add_norm_gradients, ALL | BACKWARD | row_constants(width)) for width in WIDTHS},
}


def compiled(kernel: Any, capability: int, constants: dict[str, Any]) -> Any:
    """Compile `kernel` for bf16 tensors whose addresses are multiples of 16, as torch's allocator gives them."""
    options = {"num_warps": constants.get("num_warps", 4)}
    constants = {name: value for name, value in constants.items() if name != "num_warps"}
    types = {name: kind for kind, names in TYPES.items() for name in names} | dict.fromkeys(constants, "constexpr")
    signature = {name: types.get(name, "*bf16") for name in kernel.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(signature) if signature[name].startswith("*")}
    source = ASTSource(kernel, signature, constants, aligned)
    return triton.compile(source, GPUTarget("cuda", capability, 32), options)


def spilled_bytes(binary: Any, capability: int, folder: Path) -> int:
    """Return the bytes that ptxas spills for the program's own target."""
    (folder / "kernel.ptx").write_text(binary.asm["ptx"])
    target = re.search(r"\.target (\w+)", binary.asm["ptx"])
    assert target is not None
    words = [
        get_ptxas(capability).path,
        "-v",
        f"-arch={target[1]}",
        folder / "kernel.ptx",
        "-o",
        folder / "kernel.cubin",
    ]
    told = subprocess.run([*map(str, words)], check=True, capture_output=True, text=True)
    stores = re.search(r"(\d+) bytes spill stores", told.stderr + told.stdout)
    assert stores is not None
    return int(stores[1])


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_they_compile_without_spills(capability: int, tmp_path: Path) -> None:
    spills = {
        name: spilled_bytes(compiled(kernel, capability, constants), capability, tmp_path)
        for name, (kernel, constants) in CASES.items()
    }
    assert spills == dict.fromkeys(CASES, 0)
