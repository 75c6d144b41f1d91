"""Checks a machine before anything is started there: the agent's preflight."""

import socket
from collections.abc import Sequence
from pathlib import Path

from ftsys.errors import LaunchError
from ftsys.files.paths import there
from launcher.host.ports import ephemeral_ports, free_port, named_port
from launcher.planner.world import check_slices
from launcher.protocol import Message


def check_machine(order: Message, gpus: Sequence[str]) -> None:
    """Raise LaunchError if this machine, with these GPUs, lacks a file or a GPU that a preflight order asks for."""
    host = socket.gethostname()
    for path in order["files"]:
        if not there(Path(path)):
            raise LaunchError(
                f"{path!r} is not there on {host}: every node needs the same files at the same path, "
                "as on a shared folder."
            )
    ranks = order["ranks"] or max(1, len(gpus))
    if gpus and ranks > len(gpus):
        raise LaunchError(
            f"{ranks} ranks were requested on {host}, which has {len(gpus)} GPU(s): "
            "write --gpus-per-node, or --cpu to compute on CPUs."
        )
    check_slices(gpus, ranks)


def rendezvous_port(order: Message) -> int:
    """Return the port that the order names, or the first free one of its job. Raises LaunchError if it is not free."""
    named = order["port"]
    return named_port(named) if named is not None else free_port(order["job"], ephemeral_ports())
