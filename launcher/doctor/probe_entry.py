"""Becomes a node's probe, in the environment of the ranks: `python -m launcher.doctor.probe_entry [NUMBER]`.

The question comes on standard input, as one line, and is passed on to the probe. Under srun the probe's number is that
of its task.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ftsys.console.child_python import python_command
from launcher.host.rank_environment import CPU_ENVIRONMENT, interface_environment


def main(arguments: Sequence[str]) -> None:
    """Set the environment and replace this process by the probe."""
    line = sys.stdin.readline()
    question = json.loads(line)
    number = int(arguments[0] if arguments else os.environ["SLURM_PROCID"])
    os.environ.update(question["environ"])
    os.environ.update(_rank_environment(question, number))
    read_end, write_end = os.pipe()
    if os.fork() == 0:  # a child writes the question, which may be larger than a pipe's buffer
        with os.fdopen(write_end, "w", encoding="utf-8") as stream:
            stream.write(line)
        os._exit(0)
    os.close(write_end)
    os.dup2(read_end, 0)
    os.execv(sys.executable, python_command("-m", "ftsys.probe", str(number)))


def _rank_environment(question: Mapping[str, Any], number: int) -> dict[str, str]:
    """Return the variables that an agent also sets for its ranks."""
    devices = CPU_ENVIRONMENT if question["cpu"] else {}
    return {**devices, **interface_environment(question["hosts"], number, os.environ)}


if __name__ == "__main__":
    main(sys.argv[1:])
