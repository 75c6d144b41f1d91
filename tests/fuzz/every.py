"""Fuzzes all readers with atheris: `python -m tests.fuzz.every 2 -runs=20000`, two at a time, with libFuzzer's options.

Prints a line for each reader, and all that atheris says of one with a finding, whose file stays; then ends with 1.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tests.fuzz.more_readers import all_readers


def fuzz_all(processes: int, options: Sequence[str]) -> int:
    """Fuzz each reader in a process of its own, `processes` at a time; returns the number of those with a finding."""
    with ThreadPoolExecutor(processes) as pool:
        return sum(not sound for sound in pool.map(partial(_fuzz, options), all_readers()))


def _fuzz(options: Sequence[str], name: str) -> bool:
    """Fuzz one reader and say how that ended; returns True without a finding."""
    scratch = tempfile.mkdtemp(prefix="ftsys-fuzz-")
    command = [sys.executable, "-m", "tests.fuzz.guided", name, *options]
    environ = os.environ | {"TMPDIR": scratch}
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, env=environ)
    files = re.search(r"Done (\d+) runs", done.stdout + done.stderr)
    if done.returncode or files is None:
        print(f"{name}: FOUND, see {scratch}\n{done.stdout}{done.stderr}", flush=True)
        return False
    print(f"{name}: {files[1]} files without a finding", flush=True)
    shutil.rmtree(scratch)
    return True


if __name__ == "__main__":
    sys.exit(min(fuzz_all(int(sys.argv[1]), sys.argv[2:]), 1))
