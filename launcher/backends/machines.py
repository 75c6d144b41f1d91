"""Determines the machines of a run and the world that they form. Pure, except for reading a hostfile."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ftsys.config import LaunchSection
from ftsys.errors import ConfigError, LaunchError
from ftsys.files.untrusted import file_text
from launcher.hostfile import Host, parse_hostfile
from launcher.planner.world import World
from launcher.protocol import Message


@dataclass(frozen=True)
class Machines:
    """The machines by name, and the ranks on each; None if that number depends on the GPUs they have."""

    hosts: tuple[str, ...]
    ranks_per_node: int | None


@dataclass(frozen=True)
class WorldRequest:
    """The numbers that the command line asks for, or else the run file's [launch]; None where neither gives one."""

    nodes: int | None
    ranks_per_node: int | None

    @classmethod
    def read(cls, nodes: int | None, gpus_per_node: int | None, launch: LaunchSection) -> "WorldRequest":
        """Combine both; the command line wins. One node in the run file is the default and means all there are.

        Raises ConfigError for a number below 1.
        """
        for name, value in (("--nodes", nodes), ("--gpus-per-node", gpus_per_node)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} {value} is too small: give 1 or more.")
        ranks = gpus_per_node if gpus_per_node is not None else launch.gpus_per_node
        return cls(nodes or (launch.nodes if launch.nodes > 1 else None), None if ranks == "auto" else ranks)


def local_machine(name: str, request: WorldRequest) -> Machines:
    """Return this machine. Raises LaunchError if more machines were requested."""
    hosts = _first([name], request.nodes, "this machine; --hostfile FILE names more")
    return Machines(hosts, request.ranks_per_node)


def allocated_machines(hosts: Sequence[str], request: WorldRequest) -> Machines:
    """Return the nodes of an allocation. Raises LaunchError if more were requested."""
    return Machines(_first(hosts, request.nodes, "the SLURM allocation"), request.ranks_per_node)


def listed_machines(path: str, request: WorldRequest) -> Machines:
    """Return the machines of a hostfile.

    Raises LaunchError for a file that cannot be read, for every bad line, and for too few hosts or slots.
    """
    hosts = read_hostfile(path)
    names = _first([host.name for host in hosts], request.nodes, f"hostfile {path!r}")
    return Machines(names, _slots(hosts[: len(names)], request.ranks_per_node, path))


def read_hostfile(path: str) -> tuple[Host, ...]:
    """Return the hosts of a hostfile. Raises LaunchError for a file that cannot be read, and for every bad line."""
    try:
        text = file_text(path)
    except (OSError, ValueError) as error:
        raise LaunchError(
            f"hostfile {path!r} cannot be read ({_reason(error)}): give the path of a text file."
        ) from error
    return parse_hostfile(text, path)


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)


def _first(hosts: Sequence[str], nodes: int | None, where: str) -> tuple[str, ...]:
    if nodes is not None and nodes > len(hosts):
        raise LaunchError(f"{nodes} nodes were requested, but there is only {len(hosts)} in {where}.")
    return tuple(hosts[:nodes])


def _slots(hosts: Sequence[Host], ranks: int | None, path: str) -> int:
    """Return the ranks of each host: as requested, or the slots, which must then be equal."""
    slots = {host.slots for host in hosts}
    if ranks is None and len(slots) > 1:
        listed = ", ".join(f"{host.name} has {host.slots}" for host in hosts)
        raise LaunchError(
            f"hostfile {path!r} gives the hosts different slots ({listed}), but every node runs the same number of "
            f"ranks: write --gpus-per-node {min(slots)}."
        )
    for host in hosts:
        if ranks is not None and ranks > host.slots:
            raise LaunchError(
                f"{ranks} ranks on each node were requested, but hostfile {path!r} gives {host.name!r} {host.slots}."
            )
    return ranks or min(slots)


def world_of(ready: Mapping[int, Message], machines: Machines, launcher: Literal["torchrun", "deepspeed"]) -> World:
    """Return the world that the nodes form. `ready`: their `ready` reports by node number.

    Raises LaunchError if their GPUs differ.
    """
    gpus = {len(report["gpus"]) for report in ready.values()}
    if len(gpus) > 1 and (machines.ranks_per_node is None or 0 in gpus):
        listed = ", ".join(f"{report['host']} has {len(report['gpus'])}" for report in ready.values())
        raise LaunchError(f"the nodes have different numbers of GPUs ({listed}): write --gpus-per-node N, or --cpu.")
    count = max(gpus)
    local = machines.ranks_per_node or max(1, count)
    return World(
        ranks=local * len(ready),
        nodes=len(ready),
        local_ranks=local,
        device="cuda" if count else "cpu",
        bf16_supported=all(report["bf16"] for report in ready.values()),
        launcher=launcher,
    )
