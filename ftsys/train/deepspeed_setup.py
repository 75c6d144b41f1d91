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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from ftsys.config import RunConfig
from ftsys.distributed import stay_on_loopback
from ftsys.errors import ConfigError, LaunchError
from ftsys.kernels.library_caches import check_extensions, check_triton, extensions_folder
from ftsys.train.optimizer.deepspeed_file import try_optimizer_and_scheduler
from launcher.planner.deepspeed_config import merged_config, user_json_of
from launcher.planner.deepspeed_notes import compile_advice, compiled_ops
from launcher.planner.plan import Plan

SHARED_MEMORY_OP = "deepspeed_shm_comm"
CPU_ADAM_OP = "cpu_adam"
"""The op that optimizer offload compiles, unless it was built when DeepSpeed was installed."""
_FAILURES = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, TypeError, ValueError)
"""What DeepSpeed raises, beside its own error, for an unknown key or a value of another type than it expects."""


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
    op, and ConfigError where another user could write to a folder of compiled code.
    """
    check_extensions()
    if find_spec("triton") is not None:
        check_triton()
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


@contextmanager
def whole_weights(model: nn.Module) -> Iterator[None]:
    """Gather the weights of a model whose parts ZeRO 3 has spread over the ranks; any other model is left alone.

    Collective where weights are spread.
    """
    spread = [weight for weight in model.parameters() if hasattr(weight, "ds_id")]
    if not spread:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(spread):  # `deepspeed.zero` is no module that one could import from
        yield


def prepare_for_config(config: Mapping[str, Any], say: Callable[[str], object] = print) -> None:
    """Make DeepSpeed safe to initialize with this JSON, and say which of its ops have to be compiled.

    A process without a launcher becomes the only rank of its world: DeepSpeed would look for MPI. Raises LaunchError
    when a dead process left the lock of an op that the JSON needs.
    """
    if "RANK" not in os.environ:
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        os.environ.update(alone, MASTER_PORT="0")  # a store of one process takes any free port
        stay_on_loopback()
    ops = compiled_ops(config)
    prepare_deepspeed(ops, say)
    if missing := [op for op in ops if not _is_built(op)]:
        advice = compile_advice(config)
        say(f"DeepSpeed compiles {', '.join(missing)}, which takes minutes{f'; {advice}' if advice else ''}")


def check_deepspeed_file(run: RunConfig, plan: Plan) -> None:
    """Raise ConfigError, with DeepSpeed's own words, for a user's JSON that DeepSpeed does not take.

    Imports DeepSpeed, which takes seconds, only where the run has such a file and trains with it. Joins no process
    group. Raises LaunchError and ConfigError as `prepare_deepspeed` does.
    """
    user_json = user_json_of(run)
    if user_json is None or plan.backend != "deepspeed":
        return
    settings = merged_config(user_json, run, plan)
    if plan.device == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # it would look for a GPU while it is imported
    prepare_deepspeed()
    from deepspeed.runtime.config import DeepSpeedConfig, DeepSpeedConfigError

    try:
        DeepSpeedConfig(settings)
        try_optimizer_and_scheduler(settings)
    except (DeepSpeedConfigError, *_FAILURES) as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        raise ConfigError(
            f"engine.deepspeed={run.engine.deepspeed!r}: DeepSpeed cannot use this file ({words}). Correct the key or "
            "take it out."
        ) from error


def _is_built(op: str) -> bool:
    """Return True for an op that was compiled before, here or at DeepSpeed's installation."""
    from deepspeed.git_version_info import installed_ops

    return bool(installed_ops.get(op)) or any(_in_extensions(f"{op}/{op}.so"))


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
    found = sorted(_in_extensions("*/lock"))
    holders = _holders({str(path.resolve()) for path in found}) if found else {}
    return [CompileLock(path, holders.get(str(path.resolve()))) for path in found]


def _in_extensions(pattern: str) -> Iterator[Path]:
    """Yield the paths that match `pattern` below the folder of one build, such as py311_cpu."""
    folder, levels = extensions_folder()
    return folder.glob("*/" * (levels - 1) + pattern)


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
