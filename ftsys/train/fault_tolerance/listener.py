"""Opens the socket on which rank 0 waits for the other ranks' heartbeats, at no more addresses than they need."""

import os
import socket
from collections.abc import Sequence

from ftsys.ranks import LOOPBACK, all_on_one_node, is_loopback

ALL = ""
"""Stands for all addresses of this machine; the ranks then connect to MASTER_ADDR."""


def master_address() -> str:
    """Return the IPv4 address to which MASTER_ADDR leads from this rank; "" where it leads to none."""
    try:
        return socket.gethostbyname(os.environ.get("MASTER_ADDR") or "localhost")
    except OSError:
        return ""


def open_listener(addresses: Sequence[str]) -> tuple[socket.socket, str]:
    """Listen for the ranks; returns the socket, and the address that they connect to, or ALL.

    `addresses`: what `master_address` returns on each rank. Rank 0 itself may get a loopback address for its own name,
    so the others decide. Where they get several, or none of this machine, as behind a translation of addresses, rank 0
    listens on all.
    """
    far = {address for address in addresses[1:] if address and not is_loopback(address)}
    if all_on_one_node() or not far:
        return socket.create_server((LOOPBACK, 0)), LOOPBACK
    address = far.pop()
    try:
        return socket.create_server((ALL if far else address, 0)), ALL if far else address
    except OSError:
        return socket.create_server((ALL, 0)), ALL
