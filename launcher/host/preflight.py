"""Checks a machine before anything is started there: the agent's preflight."""

import socket
from pathlib import Path

from ftsys.errors import LaunchError
from ftsys.files.paths import there
from launcher.host.ports import ephemeral_ports, free_port, named_port
from launcher.protocol import Message


def check_machine(order: Message, gpus: int) -> None:
    """Raise LaunchError if this machine, with `gpus` GPUs, lacks a file or a GPU that a preflight order asks for."""
    host = socket.gethostname()
    for path in order["files"]:
        if not there(Path(path)):
            raise LaunchError(
                f"{path!r} is not there on {host}: every node needs the same files at the same path, "
                "as on a shared folder."
            )
    if gpus and (order["ranks"] or 1) > gpus:
        raise LaunchError(
            f"{order['ranks']} ranks were requested on {host}, which has {gpus} GPU(s): "
            "write --gpus-per-node, or --cpu to compute on CPUs."
        )


def rendezvous_port(order: Message) -> int:
    """Return the port that the order names, or the first free one of its job. Raises LaunchError if it is not free."""
    named = order["port"]
    return named_port(named) if named is not None else free_port(order["job"], ephemeral_ports())
