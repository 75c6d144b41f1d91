"""Chooses the rendezvous port of a job: derived from the job, outside the ephemeral range, tested by binding.

Two jobs on one machine get different ports; a restarted job gets the same one again. The kernel gives ports of the
ephemeral range to any outgoing connection, so a port of that range may be taken at any moment.
"""

import errno
import hashlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from ftsys.errors import LaunchError

LOWEST, HIGHEST = 10_000, 65_535
"""Below 10,000 many services have their well-known ports."""

_MAX_TRIES = 512
"""Number of ports to try: if so many in a row are busy, something else is wrong."""


def ephemeral_ports(root: Path = Path("/")) -> range:
    """Return the ports that the kernel hands out by itself; Linux's default range if the file is missing."""
    path = root / "proc/sys/net/ipv4/ip_local_port_range"
    low, high = map(int, path.read_text().split()) if path.exists() else (32_768, 60_999)
    return range(low, high + 1)


def ports_of_job(job: str, ephemeral: range) -> Iterator[int]:
    """Yield every port that the job may use, beginning with the one derived from it.

    If the whole range is ephemeral, all ports from LOWEST up are used; they are tested like the others.
    """
    allowed = [port for port in range(LOWEST, HIGHEST + 1) if port not in ephemeral]
    allowed = allowed or list(range(LOWEST, HIGHEST + 1))
    first = int.from_bytes(hashlib.sha256(job.encode()).digest()[:8], "big") % len(allowed)
    yield from allowed[first:]
    yield from allowed[:first]


def can_bind(port: int) -> bool:
    """Return True if this process can listen on the port now, on IPv4 and, if the kernel has it, on IPv6."""
    families = [socket.AF_INET, *([socket.AF_INET6] if socket.has_ipv6 else [])]
    return all(_can_bind(family, port) for family in families)


def _can_bind(family: socket.AddressFamily, port: int) -> bool:
    try:
        probe = socket.socket(family, socket.SOCK_STREAM)
    except OSError:  # the kernel has no such address family: no process holds the port there
        return True
    with probe:
        # As torch's store does: a connection that was just closed does not hold the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind(("", port))
        except PermissionError:
            return False
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def free_port(job: str, ephemeral: range, is_free: Callable[[int], bool] = can_bind) -> int:
    """Return the first of the job's ports that is free on this machine. Raises LaunchError if none is."""
    for _, port in zip(range(_MAX_TRIES), ports_of_job(job, ephemeral), strict=False):
        if is_free(port):
            return port
    raise LaunchError(
        f"none of {_MAX_TRIES} ports on {socket.gethostname()} can be bound: name a free one with --port."
    )


def check_port(port: int) -> int:
    """Return a port that the user named. Raises LaunchError if it is not a port number."""
    if not 1 <= port <= HIGHEST:
        raise LaunchError(f"--port {port} is not a port: give a number from 1 to {HIGHEST}.")
    return port


def named_port(port: int, is_free: Callable[[int], bool] = can_bind) -> int:
    """Return a port that the user named. Raises LaunchError if it is busy, or not a port number."""
    if not is_free(check_port(port)):
        raise LaunchError(f"port {port} is in use on {socket.gethostname()}: name another, or leave --port out.")
    return port
