"""Finds the network interface that leads to another host."""

import fcntl
import socket
import struct
from contextlib import suppress

_GET_ADDRESS = 0x8915  # SIOCGIFADDR


def interface_towards(host: str) -> str | None:
    """Return the name of the interface through which packets to the host leave; None for the loopback or if not known.

    gloo finds its own address by the machine's host name, which Debian's /etc/hosts maps to 127.0.1.1: no other machine
    can reach that. Nothing is sent.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect((host, 9))
        address = probe.getsockname()[0]
        if not address.startswith("127."):
            return next((name for name in _interfaces() if _address(probe, name) == address), None)
    return None


def _interfaces() -> list[str]:
    return [name for _, name in socket.if_nameindex()]


def _address(probe: socket.socket, name: str) -> str | None:
    with suppress(OSError):  # an interface without an IPv4 address
        answer = fcntl.ioctl(probe, _GET_ADDRESS, struct.pack("256s", name.encode()[:15]))
        return socket.inet_ntoa(answer[20:24])
    return None
