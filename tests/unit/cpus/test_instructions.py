"""Tests the names of a CPU's vector instructions, on excerpts of /proc/cpuinfo."""

from pathlib import Path

import pytest

from ftsys.cpus.instructions import vector_instructions

ZEN = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu sse2 avx2 fma f16c avx512f avx512_bf16 avx512_vnni\n"
GRAVITON = "processor\t: 0\nFeatures\t: fp asimd aes asimddp sve i8mm bf16\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ZEN, ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16")),
        (GRAVITON, ("asimd", "asimddp", "sve", "bf16", "i8mm")),
        ("processor\t: 0\nflags\t\t: fpu sse2\n", ()),
    ],
)
def test_names_of_vector_instructions(tmp_path: Path, text: str, expected: tuple[str, ...]) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert vector_instructions(tmp_path / "cpuinfo") == expected


def test_a_system_that_does_not_tell(tmp_path: Path) -> None:
    assert vector_instructions(tmp_path / "none") == ()
