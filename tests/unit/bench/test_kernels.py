"""Tests `ftsys bench kernels`: how machine code is read, its limits, and its errors; nothing is compiled here."""

import importlib.util

import pytest

from ftsys.bench import kernels
from ftsys.bench.harness.output import Findings
from ftsys.bench.kernel_parts.machine_code import figures_of
from ftsys.cli import main

USAGE = " Function _forward:\n  REG:183 STACK:40 SHARED:0 LOCAL:0 CONSTANT[0]:636\n"
CODE = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;                              /* 0x00000a00ff017b82 */
        /*0010*/              @!P4 LDG.E.128 R16, desc[UR18][R26.64] ;                 /* 0x00000a00ff017b82 */
                                                                                       /* 0x000ff00000000800 */
        /*0020*/               @P0 LDG.E.U16 R16, desc[UR18][R26.64] ;                 /* 0x00000a00ff017b82 */
        /*0030*/              @!PT LDS RZ, [RZ] ;                                      /* 0x00000a00ff017b82 */
        /*0040*/                   LDS.64 R10, [R118+0xa040] ;                         /* 0x00000a00ff017b82 */
        /*0050*/                   LDS.128 R10, [R118+0xa040] ;                        /* 0x00000a00ff017b82 */
        /*0060*/                   LDSM.16.M88.4 R140, [R6] ;                          /* 0x00000a00ff017b82 */
        /*12c0*/             @!UP0 {} ;
"""


@pytest.mark.parametrize(
    ("instruction", "products"),
    [
        ("HMMA.16816.F32.BF16 R76, R140, R44, RZ", 2048),
        ("HMMA.1688.F32 R76, R140, R44, RZ", 1024),
        ("HGMMA.64x64x16.F32.BF16 R24, gdesc[UR8], R24", 16384),
        ("UTCHMMA gdesc[UR4], gdesc[UR6], tmem[UR11], tmem[UR18], idesc[UR19], !UPT", None),
    ],
)
def test_figures_of_machine_code(instruction: str, products: int | None) -> None:
    code = figures_of(f"{USAGE}{CODE}        /*12d0*/                   {instruction} ;\n", 25_088)
    assert (code.registers, code.spilled_bytes, code.shared_bytes) == (183, 40, 25_088)
    assert (code.narrow_global_loads, code.narrow_shared_loads) == (1, 1)
    assert (code.matrix_instructions, code.warp_products, code.instructions) == (1, products, 7)


def test_kernels_beyond_a_limit_are_named() -> None:
    row = {"registers": 128.0, "spilled bytes": 0.0, "shared KiB": 99.0}
    table = {
        "head 32, forward": row | {"registers": 255.0},
        "head 64, forward": row | {"spilled bytes": 4.0},
        "head 96, forward": row | {"spilled bytes": 8.0},
        "head 128, forward": row | {"spilled bytes": 12.0, "shared KiB": 106.0},
        "width 768 LayerNorm, add_norm": row,
        "width 1024 LayerNorm, add_norm": row | {"registers": 129.0},
        "keys, token_keys": row | {"spilled bytes": 8.0},
    }
    broken = kernels.broken_limits(Findings(tables={"compute capability 8.9": dict(table)}))
    assert broken == [
        "compute capability 8.9, head 64, forward: 4 spilled bytes, and 0 is the limit",
        "compute capability 8.9, head 128, forward: 12 spilled bytes, and 8 is the limit",
        "compute capability 8.9, head 128, forward: 106 shared KiB, and 99 is the limit",
        "compute capability 8.9, width 1024 LayerNorm, add_norm: 129 registers, and 128 is the limit",
        "compute capability 8.9, keys, token_keys: 8 spilled bytes, and 0 is the limit",
    ]


def test_bad_input_is_one_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name == "triton" else found(name))
    assert main(["bench", "kernels", "--capabilities", "75"]) == 2
    assert "--capabilities 75 is not one of this benchmark's. Use some of [80, 86, 89, 90" in capsys.readouterr().err
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "triton" else found(name))
    assert main(["bench", "kernels"]) == 2
    assert "needs Triton, which is not installed" in capsys.readouterr().err
