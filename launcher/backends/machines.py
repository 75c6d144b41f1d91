"""Which machines a run is started on, and the world that they make. Pure, but for reading a hostfile."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ftsys.config import LaunchSection
from ftsys.errors import ConfigError, LaunchError
from launcher.hostfile import Host, parse_hostfile
from launcher.planner.world import World
from launcher.protocol import Message


@dataclass(frozen=True)
class Machines:
    """The machines by name, and how many ranks each runs; None where that depends on the GPUs they have."""

    hosts: tuple[str, ...]
    ranks_per_node: int | None


@dataclass(frozen=True)
class Asked:
    """What the command line asks for, or else the run file's [launch]; None where neither says."""

    nodes: int | None
    ranks_per_node: int | None

    @classmethod
    def read(cls, nodes: int | None, gpus_per_node: int | None, launch: LaunchSection) -> "Asked":
        """The command line wins. One node in the run file is its default, and means as many as there are.

        Raises ConfigError for a count that computes nothing.
        """
        for name, value in (("--nodes", nodes), ("--gpus-per-node", gpus_per_node)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} {value} computes nothing: give 1 or more.")
        ranks = gpus_per_node if gpus_per_node is not None else launch.gpus_per_node
        return cls(nodes or (launch.nodes if launch.nodes > 1 else None), None if ranks == "auto" else ranks)


def local_machine(name: str, asked: Asked) -> Machines:
    """This machine. Raises LaunchError where more were asked for."""
    return Machines(_first([name], asked.nodes, "this machine; --hostfile FILE names more"), asked.ranks_per_node)


def allocated_machines(hosts: Sequence[str], asked: Asked) -> Machines:
    """The nodes of an allocation. Raises LaunchError where more were asked for."""
    return Machines(_first(hosts, asked.nodes, "the SLURM allocation"), asked.ranks_per_node)


def listed_machines(path: str, asked: Asked) -> Machines:
    """The machines of a hostfile.

    Raises LaunchError for a file that cannot be read, for every bad line, and where it has too few hosts or slots.
    """
    hosts = read_hostfile(path)
    names = _first([host.name for host in hosts], asked.nodes, f"hostfile {path!r}")
    return Machines(names, _slots(hosts[: len(names)], asked.ranks_per_node, path))


def read_hostfile(path: str) -> tuple[Host, ...]:
    """The hosts of a hostfile. Raises LaunchError for one that cannot be read, and for every bad line."""
    try:
        return parse_hostfile(Path(path).read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise LaunchError(f"hostfile {path!r} cannot be read ({reason}): give the path of a text file.") from error


def _first(hosts: Sequence[str], nodes: int | None, where: str) -> tuple[str, ...]:
    if nodes is not None and nodes > len(hosts):
        raise LaunchError(f"{nodes} nodes were asked for, but there is only {len(hosts)} in {where}.")
    return tuple(hosts[:nodes])


def _slots(hosts: Sequence[Host], ranks: int | None, path: str) -> int:
    """Ranks a host: as asked, or the slots, which must be equal then."""
    slots = {host.slots for host in hosts}
    if ranks is None and len(slots) > 1:
        told = ", ".join(f"{host.name} has {host.slots}" for host in hosts)
        raise LaunchError(
            f"hostfile {path!r} gives hosts different slots ({told}); every node runs as many ranks: "
            f"write --gpus-per-node {min(slots)}."
        )
    for host in hosts:
        if ranks is not None and ranks > host.slots:
            raise LaunchError(
                f"{ranks} ranks a node were asked for, but hostfile {path!r} gives {host.name!r} {host.slots}."
            )
    return ranks or min(slots)


def world_of(ready: Mapping[int, Message], machines: Machines, launcher: Literal["torchrun", "deepspeed"]) -> World:
    """The world that the nodes make; `ready` is what each said of itself.

    Raises LaunchError where they differ in what they have.
    """
    gpus = {len(word["gpus"]) for word in ready.values()}
    if len(gpus) > 1 and (machines.ranks_per_node is None or 0 in gpus):
        told = ", ".join(f"{word['host']} has {len(word['gpus'])}" for word in ready.values())
        raise LaunchError(f"the nodes have different numbers of GPUs ({told}): write --gpus-per-node N, or --cpu.")
    count = max(gpus)
    local = machines.ranks_per_node or max(1, count)
    return World(
        ranks=local * len(ready),
        nodes=len(ready),
        local_ranks=local,
        device="cuda" if count else "cpu",
        bf16_supported=all(word["bf16"] for word in ready.values()),
        launcher=launcher,
    )
