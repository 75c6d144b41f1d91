"""Runs tests in a child of a process that has imported the large libraries already, so that a trial takes seconds.

The libraries must not have started threads before: a child would wait for them for ever. So nothing of ftsys, and no
test, is ever imported or run in the parent.
"""

import contextlib
import importlib
import importlib.util
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

LIBRARIES = (
    *("accelerate", "datasets", "hypothesis", "numpy", "pyarrow", "pydantic", "pytest", "safetensors.torch"),
    *("scipy.stats", "sklearn.metrics", "torch", "transformers.models.bert.modeling_bert", "transformers.trainer"),
)
MEMORY, FILE_BYTES = 16 << 30, 1 << 30
"""Limits of a child, for mutants that would fill the machine."""
ELSEWHERE = 99
"""Exit status of a child that would test other code than that of the tree."""
NOT_RUN = {4, 5, ELSEWHERE}
"""Exit statuses after which no test has run: 4 is pytest's for a wrong argument, 5 for no tests."""
End = Literal["passed", "failed", "timed out"]


@dataclass(frozen=True)
class Trial:
    """The end of a run of tests, its seconds, and the first failure in pytest's words."""

    end: End
    seconds: float
    reason: str


def preload(libraries: Iterable[str] = LIBRARIES) -> None:
    """Import what every trial needs."""
    for name in libraries:
        importlib.import_module(name)


def try_tests(tree: Path, tests: Sequence[str], limit: float, scratch: Path) -> Trial:
    """Run `tests` of the copy in `tree` until one fails, for at most `limit` seconds; `scratch` is emptied before.

    Raises RuntimeError when tests cannot be run at all: none was found, or the modules come from elsewhere.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    log, start = scratch / "log", time.monotonic()
    child = os.fork()
    if child == 0:
        _run_tests(tree, tests, scratch, log)
    status = _ended(child, start + limit)
    seconds = time.monotonic() - start
    text = log.read_text(encoding="utf-8", errors="replace")
    if status is None:
        return Trial("timed out", seconds, f"no end after {limit:.0f} s")
    if status in NOT_RUN:
        raise RuntimeError(f"the tests {' '.join(tests)} could not be run (exit status {status}):\n{text[-2000:]}")
    return Trial("failed" if status else "passed", seconds, _reason(text) if status else "")


def _run_tests(tree: Path, tests: Sequence[str], scratch: Path, log: Path) -> None:
    """Be the child: in a session of its own, with output, temporary files and caches in `scratch`; never returns."""
    status = 1
    try:
        os.setsid()
        sys.stdout = sys.stderr = log.open("a", encoding="utf-8")
        os.dup2(sys.stdout.fileno(), 1)
        os.dup2(sys.stdout.fileno(), 2)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
        status = _pytest(tree, tests, scratch)
        sys.stdout.flush()
    finally:
        os._exit(status)


def _pytest(tree: Path, tests: Sequence[str], scratch: Path) -> int:
    import pytest

    (scratch / "tmp").mkdir()
    os.environ.update(
        PYTHONPATH=str(tree),
        PYTHONDONTWRITEBYTECODE="1",
        TMPDIR=str(scratch / "tmp"),
        HYPOTHESIS_STORAGE_DIRECTORY=str(scratch / "hypothesis"),
    )
    sys.dont_write_bytecode = True
    sys.path[:] = [str(tree), *(path for path in sys.path if path not in ("", str(Path.cwd())))]
    for name in [name for name in sys.modules if name.partition(".")[0] in ("ftsys", "launcher", "tests", "tools")]:
        del sys.modules[name]
    os.chdir(tree)
    importlib.invalidate_caches()
    found = importlib.util.find_spec("ftsys")
    if found is None or not str(found.origin).startswith(f"{tree}{os.sep}"):
        return ELSEWHERE
    options = ["-x", "-q", "--no-header", "--tb=line", "--hypothesis-seed=0", f"--basetemp={scratch / 'pytest'}"]
    options += ["-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not long and not gpu and not cluster"]
    return int(pytest.main([*options, *tests]))


def _ended(child: int, deadline: float) -> int | None:
    """Wait for the child and return its exit status, 1 where a signal ended it; None if it had to be ended."""
    ended = 0
    while not ended and time.monotonic() < deadline:
        time.sleep(0.02)
        ended, code = os.waitpid(child, os.WNOHANG)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # the programs that a test has left behind, and a child that does not end
    if not ended:
        os.waitpid(child, 0)
        return None
    return 1 if os.WIFSIGNALED(code) else os.WEXITSTATUS(code)


def _reason(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return lines[0][:200] if lines else text.strip()[-200:]
