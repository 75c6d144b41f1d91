"""Checks the folders in which torch, Triton and DeepSpeed keep compiled code, before they run what lies there.

Whoever may write to such a folder can have this user run any code. The rule is that of `ftsys.cache`. An empty variable
counts as none: to these libraries it would mean the current folder.
"""

import os
from contextlib import suppress
from pathlib import Path

from ftsys.cache import check_executables, executable_cache
from ftsys.errors import ConfigError
from ftsys.files.paths import expanded

EXTENSIONS, INDUCTOR = "TORCH_EXTENSIONS_DIR", "TORCHINDUCTOR_CACHE_DIR"
TRITON, TRITON_HOME = "TRITON_CACHE_DIR", "TRITON_HOME"


def extensions_folder() -> tuple[Path, int]:
    """Return the folder of torch's C++ extensions, such as DeepSpeed's ops, and the levels of folders down to an op.

    It is that of torch.utils.cpp_extension on Linux, which itself would create it and import setuptools.
    """
    if own := _named(EXTENSIONS):
        return Path(own), 1
    return expanded(_named("XDG_CACHE_HOME") or "~/.cache") / "torch_extensions", 2  # one for each build


def check_extensions() -> None:
    """Check torch's folder of C++ extensions. Raises ConfigError where another user could write to it.

    A default folder stays where it is: in another one everybody's ops would be compiled again.
    """
    folder, levels = extensions_folder()
    checked = check_executables(folder, EXTENSIONS, levels + 1)
    if EXTENSIONS in os.environ:
        os.environ[EXTENSIONS] = str(checked)


def settle_inductor() -> None:
    """Name a folder of this user's own for torch.compile, unless one is named; call it before torch is imported.

    Importing transformers has torch make its folder, by default in /tmp under the user's name: there anybody may have
    made something of that name. Where this user can have no own folder either, that default stays, and
    `check_inductor` looks at it before anything is compiled.
    """
    if not _named(INDUCTOR):
        with suppress(ConfigError, OSError):
            os.environ[INDUCTOR] = str(executable_cache("inductor"))


def check_inductor() -> None:
    """Give torch.compile a folder of this user's own, or check the one that is set. Raises ConfigError."""
    own = _named(INDUCTOR)
    os.environ[INDUCTOR] = str(check_executables(Path(own), INDUCTOR, 1) if own else executable_cache("inductor"))


def check_triton() -> None:
    """Check Triton's folder of kernels; where nothing is set and others could write to it, give it an own one.

    Raises ConfigError where another user could write to the folder that is set.
    """
    if own := _named(TRITON):
        os.environ[TRITON] = str(check_executables(Path(own), TRITON, 1))
        return
    home = _named(TRITON_HOME)
    try:
        check_executables(expanded(home or "~") / ".triton/cache", TRITON_HOME, 1)
    except ConfigError:
        if home:
            raise
        os.environ[TRITON] = str(executable_cache("triton"))


def _named(variable: str) -> str:
    """Return a variable's value; remove an empty one."""
    value = os.environ.get(variable, "")
    if not value:
        os.environ.pop(variable, None)
    return value
