"""What an agent finds out about its machine before anything is started there."""

import socket
from pathlib import Path

from ftsys.errors import LaunchError
from launcher.host.ports import ephemeral_ports, free_port, named_port
from launcher.protocol import Message


def check_machine(order: Message, gpus: int) -> None:
    """Raise LaunchError for what an order asks of this machine and it does not have."""
    host = socket.gethostname()
    for path in order["files"]:
        if not Path(path).exists():
            raise LaunchError(
                f"{path!r} is not there on {host}: every node needs the same files at the same path, "
                "as on a shared folder."
            )
    if gpus and (order["ranks"] or 1) > gpus:
        raise LaunchError(
            f"{order['ranks']} ranks were asked for on {host}, which has {gpus} GPU(s): "
            "write --gpus-per-node, or --cpu to compute on CPUs."
        )


def port_to_meet_at(order: Message) -> int:
    """The port that the order names, or the first free one of its job. Raises LaunchError where it cannot be bound."""
    named = order["port"]
    return named_port(named) if named is not None else free_port(order["job"], ephemeral_ports())
