"""`python -m launcher.doctor.probe_entry [SEAT]` becomes a node's probe, in the ranks' environment.

The question comes on standard input, as one line, and goes on to the probe. Under srun the seat is the node's number.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from launcher.host.network_interface import interface_towards


def main(words: Sequence[str]) -> None:
    """Set the environment and turn into the probe."""
    line = sys.stdin.readline()
    question = json.loads(line)
    seat = int(words[0] if words else os.environ["SLURM_NODEID"])
    os.environ.update(question["environ"])
    os.environ.update(_added(question, seat))
    read_end, write_end = os.pipe()
    if os.fork() == 0:  # a writer of its own: a question may be larger than a pipe holds
        with os.fdopen(write_end, "w", encoding="utf-8") as stream:
            stream.write(line)
        os._exit(0)
    os.close(write_end)
    os.dup2(read_end, 0)
    os.execv(sys.executable, [sys.executable, "-m", "ftsys.probe", str(seat)])


def _added(question: Mapping[str, Any], seat: int) -> dict[str, str]:
    """As `launcher.agent` does for the ranks."""
    added = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"} if question["cpu"] else {}
    others = [host for host in question["hosts"] if host != question["hosts"][seat]]
    if others and "GLOO_SOCKET_IFNAME" not in os.environ:
        name = interface_towards(others[0] if seat == 0 else question["hosts"][0])
        added |= {"GLOO_SOCKET_IFNAME": name} if name else {}
    return added


if __name__ == "__main__":
    main(sys.argv[1:])
