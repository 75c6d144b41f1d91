"""Compiles the kernels on first use, keeps the result in the cache folder, and calls them with tensors.

The sources need no headers but C++'s own, so a compiler takes two seconds. They share torch's OpenMP runtime, which is
in the process already: a second one would have threads of its own, and the two would wait for each other's cores.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ftsys.cache import cache_folder

NATIVE = "native"
"""What engine.kernels calls them."""

SOURCES = ("attention.cpp", "elementwise.cpp", "optimizer.cpp")
FLAGS = ("-std=c++20", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC", "-shared")
DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}

_FOLDER = Path(__file__).parent


class Library:
    """The kernels' functions, by the names that the sources give them."""

    def __init__(self, path: Path) -> None:
        """Load what the compiler left at `path`. Raises OSError."""
        _share_openmp()
        self._library = ctypes.CDLL(str(path))

    def call(self, name: str, *arguments: Any, dtype: torch.dtype, returns: Any = None) -> Any:
        """Call `name` for tensors of `dtype` with tensors, structures and whole numbers."""
        function = self._library[f"{name}_{DTYPES[dtype]}"]  # a fresh object for each call
        function.restype = returns
        return function(*map(_as_c, arguments))


def _as_c(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return ctypes.c_void_p(value.data_ptr())
    if isinstance(value, ctypes.Structure):
        return ctypes.byref(value)
    return ctypes.c_int64(value)


def native() -> Library | None:
    """The kernels, or None where this machine cannot make them; `why_not_native` says why."""
    found = _found()
    return None if isinstance(found, str) else found


def why_not_native() -> str | None:
    """The reason why there are no native kernels here, or None where there are."""
    found = _found()
    return found if isinstance(found, str) else None


_given_up: list[str] = []


def give_up(reason: str) -> None:
    """Go without them from now on in this process, for `reason`."""
    _given_up.append(reason)


def _found() -> Library | str:
    return _given_up[0] if _given_up else _load()


@cache
def _load() -> Library | str:
    if platform.system() != "Linux":
        return "they are made on Linux only"
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        return f"there is no C++ compiler (CXX={os.environ.get('CXX', 'g++')!r})"
    try:
        return Library(_compiled(compiler))
    except subprocess.CalledProcessError as error:
        return f"{compiler} failed: {error.stderr.strip()[-300:]}"
    except OSError as error:
        return str(error)


def _compiled(compiler: str) -> Path:
    """The library's file. No lock: several processes may compile at once, and each puts a whole file in place."""
    target = cache_folder() / "native" / f"{_fingerprint(compiler)}.so"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{platform.node()}-{os.getpid()}.tmp")
    sources = [str(_FOLDER / name) for name in SOURCES]
    try:
        command = [compiler, *FLAGS, "-x", "c++", *sources, "-o", str(partial)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def _fingerprint(compiler: str) -> str:
    """Changes with the sources, the flags, the compiler and the processor: a cache folder may be shared by nodes."""
    told = [*FLAGS, *(path.read_text() for path in sorted(_FOLDER.iterdir()) if path.suffix in (".cpp", ".h"))]
    told.append(subprocess.run([compiler, "--version"], check=True, capture_output=True, text=True).stdout)
    described = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.split("\t")[0] in _CPU_LINES]
    return hashlib.sha256("\n".join([*told, *sorted(set(described))]).encode()).hexdigest()[:24]


_CPU_LINES = ("vendor_id", "cpu family", "model", "flags", "Features", "CPU part")


def _share_openmp() -> None:
    """Make torch's own OpenMP runtime visible to what is loaded next."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    loaded = sorted({line.split()[-1] for line in lines if "libgomp" in line})
    ctypes.CDLL(loaded[0] if loaded else "libgomp.so.1", mode=ctypes.RTLD_GLOBAL)
