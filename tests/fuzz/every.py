"""Fuzzes all readers in turn with atheris: `python -m tests.fuzz.every -runs=20000`, or other options of libFuzzer.

Prints a line for each reader, and all that atheris says of one with a finding, whose file stays; then ends with 1.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile

from tests.fuzz.readers import readers


def fuzz_all(options: list[str]) -> int:
    """Fuzz each reader in a process of its own; returns the number of those with a finding."""
    found = 0
    for name in readers():
        scratch = tempfile.mkdtemp(prefix="ftsys-fuzz-")
        command = [sys.executable, "-m", "tests.fuzz.guided", name, *options]
        environ = os.environ | {"TMPDIR": scratch}
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, env=environ)
        files = re.search(r"Done (\d+) runs", done.stdout + done.stderr)
        if done.returncode or files is None:
            found += 1
            print(f"{name}: FOUND, see {scratch}\n{done.stdout}{done.stderr}", flush=True)
        else:
            print(f"{name}: {files[1]} files without a finding", flush=True)
            shutil.rmtree(scratch)
    return found


if __name__ == "__main__":
    sys.exit(min(fuzz_all(sys.argv[1:]), 1))
