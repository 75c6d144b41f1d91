"""`ftlaunch run`: start a run's ranks on this machine, on the hosts of a hostfile, or in a SLURM allocation."""

import argparse
import os
import queue
import shutil
import socket
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ftsys.config import RunConfig, load_run
from ftsys.errors import STOPPED_EARLY, ConfigError, LaunchError
from launcher.backends import Agents, Said, allocated_hosts, host_agents, local_agents, slurm_agents
from launcher.choose import Choice, choose_backend
from launcher.command import Start, passed_environment
from launcher.commands.shared import Commands, add_command, planned
from launcher.conduct import Conductor
from launcher.hostfile import Host, parse_hostfile
from launcher.messages import Message
from launcher.outcome import closing_lines, exit_of_this_start, judge, newest_attempt
from launcher.world import World


def add_parser(commands: Commands) -> None:
    """Declare the command's words."""
    parser = add_command(commands, "run", "start a run's ranks: here, on several machines, or in a SLURM allocation")
    parser.add_argument("run", metavar="RUN.toml", help="the run file")
    parser.add_argument("--backend", choices=("auto", "local", "hostfile", "slurm"), help="default: launch.backend")
    parser.add_argument("--hostfile", metavar="FILE", help="a line `name slots=N` for each host")
    parser.add_argument("--nodes", type=int, help="machines (default: all of the hostfile or the allocation)")
    parser.add_argument("--gpus-per-node", type=int, help="ranks a machine (default: launch.gpus_per_node)")
    parser.add_argument("--cpu", action="store_true", help="compute on CPUs, even where GPUs are seen")
    parser.add_argument("--launcher", choices=("torchrun", "deepspeed"), default="torchrun", help="default: torchrun")
    parser.add_argument("--port", type=int, help="where the ranks meet (default: derived from the job)")
    parser.add_argument("--overwrite", action="store_true", help="start anew in a run folder that was used before")
    parser.set_defaults(command=command)


def command(options: argparse.Namespace, overrides: list[str]) -> int:
    """Start the ranks, wait for them, and return the exit status that stands for the run.

    Raises LaunchError and ConfigError, with 2, for whatever is found to be wrong before a rank has been started.
    """
    run = load_run(options.run, overrides)
    asked, source = (options.backend, "--backend") if options.backend else (run.launch.backend, "launch.backend")
    choice = choose_backend(asked, source, options.hostfile, os.environ, shutil.which("srun") is not None)
    shape = _shape(options, run, choice)
    inbox: queue.Queue[Said] = queue.Queue()
    conductor = Conductor(_agents(choice, shape, inbox), inbox)
    folder = Path(run.output_dir).absolute()
    with conductor.at_work():
        ready = conductor.prepare(
            environment=passed_environment(os.environ) if choice.backend == "hostfile" else {},
            cpu=options.cpu,
            ranks=shape.ranks_per_node,
            files=_files(options.run, run),
            port=options.port,
            job=_job(choice, folder, os.environ),
        )
        if conductor.stop is not None:
            return STOPPED_EARLY
        world = _world(ready, shape, options.launcher)
        planned(run, world)
        before, start = newest_attempt(folder), _start(options, overrides, world, shape, ready, folder)
        _make_logs(Path(start.logs))
        print(_announcement(choice, world, start, ready), file=sys.stderr, flush=True)
        conductor.start(start, shape.hosts)
        conductor.wait()
    outcome = judge(conductor.ended, exit_of_this_start(folder, before), conductor.stop, conductor.unstarted)
    for line in closing_lines(outcome, Path(start.logs), conductor.unstarted):
        print(line, file=sys.stderr, flush=True)
    return outcome.status


@dataclass(frozen=True)
class Shape:
    """The machines, and how many ranks each runs; None where that depends on the GPUs they have."""

    hosts: tuple[str, ...]
    ranks_per_node: int | None


def _shape(options: argparse.Namespace, run: RunConfig, choice: Choice) -> Shape:
    if options.launcher == "deepspeed" and choice.backend != "local":
        raise LaunchError(
            f"--launcher deepspeed starts one machine, the backend is {choice.backend!r} ({choice.why}): leave it out. "
            "torchrun starts DeepSpeed's engine too, by --engine.backend deepspeed."
        )
    nodes = options.nodes if options.nodes is not None else run.launch.nodes if run.launch.nodes > 1 else None
    asked = options.gpus_per_node if options.gpus_per_node is not None else run.launch.gpus_per_node
    ranks = None if asked == "auto" else int(asked)
    for name, value in (("--nodes", nodes), ("--gpus-per-node", ranks)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} {value} computes nothing: give 1 or more.")
    if choice.backend == "local":
        return Shape(_first([socket.gethostname()], nodes, "this machine; --hostfile FILE names more"), ranks)
    if choice.backend == "slurm":
        return Shape(_first(allocated_hosts(os.environ), nodes, "the SLURM allocation"), ranks)
    hosts = read_hostfile(options.hostfile)
    names = _first([host.name for host in hosts], nodes, f"hostfile {options.hostfile!r}")
    return Shape(names, _slots(hosts[: len(names)], ranks, options.hostfile))


def _first(hosts: Sequence[str], nodes: int | None, where: str) -> tuple[str, ...]:
    if nodes is not None and nodes > len(hosts):
        raise LaunchError(f"{nodes} nodes were asked for, but there is only {len(hosts)} in {where}.")
    return tuple(hosts[:nodes])


def read_hostfile(path: str) -> tuple[Host, ...]:
    """The hosts of a hostfile. Raises LaunchError for one that cannot be read, and for every bad line."""
    try:
        return parse_hostfile(Path(path).read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise LaunchError(f"hostfile {path!r} cannot be read ({reason}): give the path of a text file.") from error


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


def _agents(choice: Choice, shape: Shape, inbox: "queue.Queue[Said]") -> list[Agents]:
    if choice.backend == "slurm":
        return slurm_agents(shape.hosts, os.environ, inbox)
    if choice.backend == "hostfile":
        return host_agents(shape.hosts, str(Path.cwd()), os.environ, inbox)
    return local_agents(inbox)


def _files(run_file: str, run: RunConfig) -> list[str]:
    """What every node must see, as far as it is a path and seen here."""
    source = run.data.source
    sources = list(source.values()) if isinstance(source, dict) else [source]
    return [
        run_file,
        *(path for path in (run.model.name, run.engine.deepspeed, *sources) if path and Path(path).exists()),
    ]


def _job(choice: Choice, folder: Path, environ: Mapping[str, str]) -> str:
    """What the port is derived from."""
    return f"slurm job {environ['SLURM_JOB_ID']}" if choice.backend == "slurm" else str(folder)


def _world(ready: Mapping[int, Message], shape: Shape, launcher: Literal["torchrun", "deepspeed"]) -> World:
    """The world that the nodes make. Raises LaunchError where they differ in what they have."""
    gpus = {len(word["gpus"]) for word in ready.values()}
    if len(gpus) > 1 and (shape.ranks_per_node is None or 0 in gpus):
        told = ", ".join(f"{word['host']} has {len(word['gpus'])}" for word in ready.values())
        raise LaunchError(f"the nodes have different numbers of GPUs ({told}): write --gpus-per-node N, or --cpu.")
    count = max(gpus)
    local = shape.ranks_per_node or max(1, count)
    return World(
        ranks=local * len(ready),
        nodes=len(ready),
        local_ranks=local,
        device="cuda" if count else "cpu",
        bf16_supported=all(word["bf16"] for word in ready.values()),
        launcher=launcher,
    )


def _start(
    options: argparse.Namespace,
    overrides: Sequence[str],
    world: World,
    shape: Shape,
    ready: Mapping[int, Message],
    folder: Path,
) -> Start:
    return Start(
        launcher=options.launcher,
        nodes=world.nodes,
        ranks_per_node=world.local_ranks,
        master=shape.hosts[0] if world.nodes > 1 else "127.0.0.1",
        port=ready[0]["port"],
        run_id=uuid.uuid4().hex,
        program=("train", options.run, *(["--overwrite"] if options.overwrite else []), *overrides),
        logs=str(folder / "logs"),
        devices=tuple(ready[0]["gpus"][: world.local_ranks]),
    )


def _make_logs(logs: Path) -> None:
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"output_dir={str(logs.parent)!r} cannot be written ({error.strerror}). "
            "Name a folder that you may write to."
        ) from error


def _announcement(choice: Choice, world: World, start: Start, ready: Mapping[int, Message]) -> str:
    ranks = f"{world.ranks} {'GPU' if world.device == 'cuda' else 'CPU'} rank{'s' if world.ranks > 1 else ''}"
    where = f" on {', '.join(word['host'] for _, word in sorted(ready.items()))}" if world.nodes > 1 else ""
    threads = " or ".join(dict.fromkeys(word["threads"] for _, word in sorted(ready.items())))
    started = f"{start.launcher} starts {ranks}{where}, {threads}, port {start.port}"
    return f"ftlaunch: {choice.backend} ({choice.why}): {started}"
