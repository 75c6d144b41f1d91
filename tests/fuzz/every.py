"""Fuzzes all readers in turn with atheris: `python -m tests.fuzz.every -runs=20000`, or other options of libFuzzer.

Prints a line for each reader, and all that atheris says of one with a finding; then ends with 1.
"""

import re
import subprocess
import sys

from tests.fuzz.readers import readers


def fuzz_all(options: list[str]) -> int:
    """Fuzz each reader in a process of its own; returns the number of those with a finding."""
    found = 0
    for name in readers():
        command = [sys.executable, "-m", "tests.fuzz.guided", name, *options]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        files = re.search(r"Done (\d+) runs", done.stdout + done.stderr)
        if done.returncode or files is None:
            found += 1
            print(f"{name}: FOUND\n{done.stdout}{done.stderr}", flush=True)
        else:
            print(f"{name}: {files[1]} files without a finding", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(min(fuzz_all(sys.argv[1:]), 1))
