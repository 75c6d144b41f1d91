"""Says what this machine lacks for the kernels that run on a GPU, in words that complete "..., because ...".

Triton compiles a small C module when it is first used, for which it needs a C compiler and Python's own header files.
A machine without them fails in the first step. So they are looked for before the kernels are chosen.
"""

import importlib.util
import os
import shutil
import subprocess
import sysconfig
from functools import cache
from pathlib import Path

import torch

from ftsys.kernels.library_caches import check_triton

LOWEST_CAPABILITY = (8, 0)
"""Lowest compute capability of the kernels of ftsys, torch and flash-attn: Ampere. Triton 3.9 supports no lower one."""


def why_not_capability() -> str | None:
    """Return the reason why this process's GPU is too old for the kernels, or None."""
    found = torch.cuda.get_device_capability()
    needed = ".".join(map(str, LOWEST_CAPABILITY))
    if found >= LOWEST_CAPABILITY:
        return None
    return f"the GPU has compute capability {found[0]}.{found[1]}, below {needed}"


@cache
def why_not_triton() -> str | None:
    """Return the reason why Triton's kernels cannot run in this process, or None.

    Raises ConfigError where another user could write to the folder that is set for its compiled code.
    """
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if reason := why_not_capability():
        return reason
    check_triton()
    missing = why_not_build()
    return None if missing is None or _is_built() else missing


def why_not_build() -> str | None:
    """Return the reason why Triton cannot compile its C module here, or None."""
    named = os.environ.get("CC")
    if not any(map(shutil.which, ("gcc", "clang") if named is None else (named,))):
        found = "there is neither gcc nor clang" if named is None else f"CC={named!r} is no program"
        return f"Triton needs a C compiler, and {found}"
    header = Path(sysconfig.get_paths(_scheme())["include"], "Python.h")
    return None if header.is_file() else f"Triton needs Python's header files, and {header} does not exist"


def _scheme() -> str:
    """Return the layout of folders in which Triton looks for the header: that of Debian's own packages on Debian."""
    scheme = sysconfig.get_default_scheme()
    return "posix_prefix" if scheme == "posix_local" else scheme


def _is_built() -> bool:
    """Return True if Triton's C module can be loaded: an earlier run may have left it in Triton's cache."""
    from triton.runtime import driver

    try:
        return driver.active is not None
    except (RuntimeError, OSError, AssertionError, subprocess.CalledProcessError):  # all that its build may raise
        return False
