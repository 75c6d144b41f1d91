"""Compiles the C++ kernels on first use, stores the library in the cache folder, and calls it with tensors.

The sources include only headers of standard C++, so compilation takes two seconds. The library uses the OpenMP runtime
that torch has already loaded: a second runtime would start its own threads, which would compete for the same cores.
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

from ftsys.cache import check_private, executable_cache
from ftsys.files.folders import sync_tree

NATIVE = "native"
"""Name of these kernels in `engine.kernels`."""

SOURCES = ("attention.cpp", "elementwise.cpp", "optimizer.cpp")
FLAGS = ("-std=c++20", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC", "-shared")
DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}

_FOLDER = Path(__file__).parent


class Library:
    """Calls the functions of the compiled library by name."""

    def __init__(self, path: Path) -> None:
        """Load the library at `path`. Raises OSError, and ConfigError for a file that another user can write."""
        _share_openmp()
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            check_private(path, os.fstat(file))
            self._library = ctypes.CDLL(f"/proc/self/fd/{file}")  # the file that was checked, whatever has its name now
        finally:
            os.close(file)

    def call(self, name: str, *arguments: Any, dtype: torch.dtype, returns: Any = None) -> Any:
        """Call function `name` for `dtype`; arguments are tensors, ctypes structures or integers."""
        function = self._library[
            f"{name}_{DTYPES[dtype]}"
        ]  # a new object per call, so `restype` is not shared between threads
        function.restype = returns
        return function(*map(_as_c, arguments))


def _as_c(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return ctypes.c_void_p(value.data_ptr())
    if isinstance(value, ctypes.Structure):
        return ctypes.byref(value)
    return ctypes.c_int64(value)


def native() -> Library | None:
    """Return the kernels, or None if this machine cannot compile them; `why_not_native` gives the reason."""
    found = _found()
    return None if isinstance(found, str) else found


def why_not_native() -> str | None:
    """Return the reason why this machine has no native kernels, or None if it has them."""
    found = _found()
    return found if isinstance(found, str) else None


_given_up: list[str] = []


def give_up(reason: str) -> None:
    """Switch the native kernels off in this process, for `reason`."""
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
    """Return the library's file; compile it if needed.

    There is no lock: several processes may compile at once, and each one moves a complete file into place.
    """
    target = executable_cache("native") / f"{_fingerprint(compiler)}.so"
    if target.exists():
        return target
    partial = target.with_suffix(f".{platform.node()}-{os.getpid()}.tmp")
    sources = [str(_FOLDER / name) for name in SOURCES]
    try:
        command = [compiler, *FLAGS, "-x", "c++", *sources, "-o", str(partial)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        partial.chmod(0o700)  # the umask may let a group write
        sync_tree(partial)  # half a library would be found at each later start
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def _fingerprint(compiler: str) -> str:
    """Return a hash of sources, flags, compiler and processor, because nodes may share a cache folder."""
    inputs = [*FLAGS, *(path.read_text() for path in sorted(_FOLDER.iterdir()) if path.suffix in (".cpp", ".h"))]
    inputs.append(subprocess.run([compiler, "--version"], check=True, capture_output=True, text=True).stdout)
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.split("\t")[0] in _CPU_LINES]
    return hashlib.sha256("\n".join([*inputs, *sorted(set(cpu))]).encode()).hexdigest()[:24]


_CPU_LINES = ("vendor_id", "cpu family", "model", "flags", "Features", "CPU part")


def _share_openmp() -> None:
    """Make the symbols of torch's OpenMP runtime visible to libraries loaded later."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    loaded = sorted({line.split()[-1] for line in lines if "libgomp" in line})
    ctypes.CDLL(loaded[0] if loaded else "libgomp.so.1", mode=ctypes.RTLD_GLOBAL)
