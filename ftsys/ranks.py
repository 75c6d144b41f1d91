"""Reads this process's rank, and where the others are, from the launcher's variables; finds ports and the loopback."""

import os
import socket
from collections.abc import Mapping

LOOPBACK = "127.0.0.1"


def is_main_rank() -> bool:
    """Return True on rank 0, by the launcher's RANK, and in a process without a launcher."""
    return os.environ.get("RANK", "0") == "0"


def may_complain() -> bool:
    """Return True if this process prints its errors: rank 0, and every rank that has a log of its own."""
    return is_main_rank() or "FTSYS_OWN_LOG" in os.environ  # `ftlaunch` gives each rank a log


def has_launcher(environ: Mapping[str, str]) -> bool:
    """Return True for a rank of torchrun, accelerate or deepspeed, which stop a machine's ranks when one has failed."""
    return "TORCHELASTIC_RUN_ID" in environ or "CROSS_SIZE" in environ


def has_other_ranks() -> bool:
    """Return True if the launcher has started more than this rank."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def all_on_one_node() -> bool:
    """Return True if the launcher's variables say that all ranks run on this machine; False if they do not say."""
    here = local_world_size(os.environ)
    return here is not None and here == os.environ.get("WORLD_SIZE")


def local_world_size(environ: Mapping[str, str]) -> str | None:
    """Return the launcher's number of ranks on this machine, as it has written it; None where it does not say."""
    return environ.get("LOCAL_WORLD_SIZE", environ.get("LOCAL_SIZE"))  # torchrun's name and DeepSpeed's


def is_loopback(address: str) -> bool:
    """Return True for an IPv4 address that only processes of this machine reach."""
    return address.startswith("127.") and address.replace(".", "").isdecimal()


def loopback_interface() -> str | None:
    """Return the name of the network interface that leads to this machine alone; None where it has none."""
    return "lo" if "lo" in (name for _, name in socket.if_nameindex()) else None


def free_port() -> int:
    """Return a TCP port of this machine that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
