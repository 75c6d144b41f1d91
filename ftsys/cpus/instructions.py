"""Names the vector instructions of this CPU on which the speed of matrix products depends."""

from pathlib import Path

X86 = (
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
)
ARM = ("asimd", "asimddp", "sve", "sve2", "bf16", "svebf16", "i8mm")


def vector_instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """Return those that the CPU has, by Linux's names; empty where the system does not tell."""
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.exists() else []
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return tuple(name for name in (*X86, *ARM) if name in flags)
