"""Prepares DeepSpeed before its first use, so that it compiles nothing, does not hang, and logs no noise.

True of DeepSpeed 0.19.8 with torch 2.13: on the CPU `init_distributed` compiles `deepspeed_shm_comm` for any job. This
takes a minute and a compiler, and its lock file outlives a killed rank and hangs every later one. Gloo works without
that op.
"""

import logging
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ftsys.errors import LaunchError

SHARED_MEMORY_OP = "deepspeed_shm_comm"
CPU_ADAM_OP = "cpu_adam"
"""The op that optimizer offload compiles, unless it was built when DeepSpeed was installed."""


@dataclass(frozen=True)
class CompileLock:
    """A lock in torch's cache of compiled extensions, and the process of this machine that holds it, or None."""

    path: Path
    holder: int | None

    @property
    def op(self) -> str:
        """Name of the op that the lock guards."""
        return self.path.parent.name

    def __str__(self) -> str:
        if self.holder is not None:
            return f"{self.path}: process {self.holder} is compiling {self.op!r}; ranks that need it wait for it"
        return (
            f"{self.path}: left by a process that is not on this machine any more; a rank that needs {self.op!r} would "
            "wait for ever. Unless another machine that shares this folder compiles right now: "
            f"rm {shlex.quote(str(self.path))}"
        )


def prepare_deepspeed(needed_ops: Sequence[str] = (), say: Callable[[str], object] = print) -> None:
    """Make DeepSpeed safe to initialize in this process; call it before that, any number of times.

    `needed_ops` are ops that this run will compile or load, such as CPU_ADAM_OP under optimizer offload; `say` is
    called for one that another process is compiling. Raises LaunchError when a dead process left the lock of such an
    op.
    """
    locks = [lock for lock in compile_locks() if lock.op in needed_ops]
    stale = [str(lock) for lock in locks if lock.holder is None]
    if stale:
        raise LaunchError("\n".join(stale))
    for lock in locks:
        say(str(lock))
    quiet_deepspeed()
    import deepspeed.ops

    # Again, for the handler that the import created.
    quiet_deepspeed()
    if SHARED_MEMORY_OP not in needed_ops:
        deepspeed.ops.__compatible_ops__[SHARED_MEMORY_OP] = False


def quiet_deepspeed() -> None:
    """Keep only warnings that a user can act on in DeepSpeed's log, and send it to stderr: stdout holds results.

    Call it before or after the import. Left out are that it uses the CPU, which the plan decided, and the deprecated
    collectives that it calls itself, one warning for each call.
    """
    logger = logging.getLogger("DeepSpeed")
    if _worth_saying not in logger.filters:
        logger.addFilter(_worth_saying)
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
            handler.setStream(sys.stderr)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.c10d_logger")


def _worth_saying(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING and not str(record.msg).startswith("Setting accelerator to CPU")


def compile_locks() -> list[CompileLock]:
    """Return all locks in the folder where torch compiles extensions, each with its holder on this machine."""
    from torch._appdirs import user_cache_dir

    # The same folder as torch.utils.cpp_extension, which would create it and import setuptools.
    own = os.environ.get("TORCH_EXTENSIONS_DIR")
    root, pattern = (Path(own), "*/lock") if own else (Path(user_cache_dir(appname="torch_extensions")), "*/*/lock")
    found = sorted(root.glob(pattern))
    holders = _holders({str(path.resolve()) for path in found}) if found else {}
    return [CompileLock(path, holders.get(str(path.resolve()))) for path in found]


def _holders(paths: set[str]) -> dict[str, int]:
    """Return the process that has each path open: torch's lock keeps its file open while it compiles."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        # Processes and files may vanish meanwhile; those of other users are not readable, but the cache is our user's.
        with suppress(OSError):
            for link in (process / "fd").iterdir():
                with suppress(OSError):
                    target = str(link.readlink())
                    if target in paths:
                        found[target] = int(process.name)
    return found
