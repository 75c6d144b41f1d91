"""Finds ports for tests that run beside others."""

from uuid import uuid4

from launcher.host.ports import ephemeral_ports, free_port


def unused_port() -> int:
    """Return a free port of those that the kernel gives to no connection, so that it is still free a moment later."""
    return free_port(uuid4().hex, ephemeral_ports())
