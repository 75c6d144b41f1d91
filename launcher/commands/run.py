"""`ftlaunch run`: start a run's ranks on this machine, on the hosts of a hostfile, or in a SLURM allocation."""

import argparse
import os
import queue
import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ftsys.config import RunConfig, load_run
from ftsys.errors import STOPPED_EARLY, ConfigError
from ftsys.run_folder.status import exit_of_this_start, newest_attempt
from launcher.backends.agents import Agents, Said, host_agents, local_agents, slurm_agents
from launcher.backends.machines import Machines, world_of
from launcher.backends.select import Choice, job_of
from launcher.command_lines import Start, passed_environment
from launcher.commands.shared import Commands, add_command, planned
from launcher.commands.where import add_where_options, chosen_backend, machines_of
from launcher.controller import Conductor
from launcher.exit_report import closing_lines, judge
from launcher.planner.world import World
from launcher.protocol import Message
from launcher.timeouts import SILENCE_SECONDS

NAMED_HOSTS = 4
"""More machines than this are counted, not named."""


def add_parser(commands: Commands) -> None:
    """Declare the command's words."""
    parser = add_command(commands, "run", "start a run's ranks: here, on several machines, or in a SLURM allocation")
    parser.add_argument("run", metavar="RUN.toml", help="the run file")
    add_where_options(parser)
    parser.add_argument("--launcher", choices=("torchrun", "deepspeed"), default="torchrun", help="default: torchrun")
    parser.add_argument("--overwrite", action="store_true", help="start anew in a run folder that was used before")
    parser.set_defaults(command=command)


def command(options: argparse.Namespace, overrides: list[str]) -> int:
    """Start the ranks, wait for them, and return the exit status that stands for the run.

    Raises LaunchError and ConfigError, with 2, for whatever is found to be wrong before a rank has been started.
    """
    run = load_run(options.run, overrides)
    choice = chosen_backend(options, run)
    machines = machines_of(options, run, choice)
    inbox: queue.Queue[Said] = queue.Queue()
    conductor = Conductor(_agents(choice, machines, inbox), inbox)
    folder = this_folder(os.environ) / run.output_dir
    with conductor.at_work():
        ready = conductor.prepare(**_wanted(options, run, choice, machines))
        if conductor.stop is not None:
            say(f"error: stopped by {conductor.stop.name} before anything was started")
            return STOPPED_EARLY
        world = world_of(ready, machines, options.launcher)
        planned(run, world)
        before, start = newest_attempt(folder), _start(options, overrides, world, machines, ready, folder)
        _make_logs(Path(start.logs))
        say(announcement(choice, world, start, ready))
        conductor.start(start, machines.hosts)
        conductor.wait()
    outcome = judge(conductor.ended, exit_of_this_start(folder, before), conductor.stop, conductor.unstarted)
    for line in closing_lines(outcome, Path(start.logs), conductor.unstarted):
        say(line)
    return outcome.status


def say(line: str) -> None:
    """A line of `ftlaunch`'s own, on standard error: standard output is rank 0's."""
    with suppress(OSError):  # the terminal is gone
        print(line, file=sys.stderr, flush=True)


def this_folder(environ: Mapping[str, str]) -> Path:
    """The folder we are in, under the name that the user's shell has for it: other machines may know no other."""
    named, found = Path(environ.get("PWD", "")), Path.cwd()
    return named if named.is_absolute() and named.exists() and named.samefile(found) else found


def _wanted(options: argparse.Namespace, run: RunConfig, choice: Choice, machines: Machines) -> dict[str, object]:
    """What every node is to look for on itself."""
    over_ssh = choice.backend == "hostfile"
    return {
        "environment": passed_environment(os.environ) if over_ssh else {},
        "cpu": options.cpu,
        "ranks": machines.ranks_per_node,
        "files": needed_files(options.run, run),
        "port": options.port,
        "job": job_of(choice, Path(run.output_dir), os.environ),
        "silence": SILENCE_SECONDS if over_ssh else None,
    }


def _agents(choice: Choice, machines: Machines, inbox: "queue.Queue[Said]") -> list[Agents]:
    if choice.backend == "slurm":
        return slurm_agents(machines.hosts, os.environ, inbox)
    if choice.backend == "hostfile":
        return host_agents(machines.hosts, str(this_folder(os.environ)), os.environ, inbox)
    return local_agents(inbox)


def needed_files(run_file: str, run: RunConfig) -> list[str]:
    """What every node must see, as far as it is a path and seen here. A bundle stands for what was collected in it."""
    if run.bundle:
        return [run_file, run.bundle]
    source = run.data.source
    sources = list(source.values()) if isinstance(source, dict) else [source]
    return [
        run_file,
        *(path for path in (run.model.name, run.engine.deepspeed, *sources) if path and Path(path).exists()),
    ]


def _start(
    options: argparse.Namespace,
    overrides: Sequence[str],
    world: World,
    machines: Machines,
    ready: Mapping[int, Message],
    folder: Path,
) -> Start:
    return Start(
        launcher=options.launcher,
        nodes=world.nodes,
        ranks_per_node=world.local_ranks,
        master=machines.hosts[0] if world.nodes > 1 else "127.0.0.1",
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


def announcement(choice: Choice, world: World, start: Start, ready: Mapping[int, Message]) -> str:
    """The one line that says what was chosen, and why."""
    ranks = f"{world.ranks} {'GPU' if world.device == 'cuda' else 'CPU'} rank{'s' if world.ranks > 1 else ''}"
    hosts = [word["host"] for _, word in sorted(ready.items())]
    where = ", ".join(hosts) if len(hosts) <= NAMED_HOSTS else f"{len(hosts)} machines, {hosts[0]} to {hosts[-1]}"
    threads = " or ".join(dict.fromkeys(word["threads"] for _, word in sorted(ready.items())))
    started = (
        f"{start.launcher} starts {ranks}{f' on {where}' if world.nodes > 1 else ''}, {threads}, port {start.port}"
    )
    return f"ftlaunch: {choice.backend} ({choice.why}): {started}"
