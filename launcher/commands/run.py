"""Runs `ftlaunch run`: starts a run's ranks on this machine, on the hosts of a hostfile, or in a SLURM allocation."""

import argparse
import os
import queue
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from ftsys.config import RunConfig, load_run
from ftsys.console.printer import complain, say
from ftsys.errors import STOPPED_EARLY, ConfigError, StorageError
from ftsys.files.paths import there
from ftsys.run_folder.attempts import highest_attempt
from ftsys.run_folder.layout import LOGS
from ftsys.run_folder.status import exit_of_this_start
from ftsys.run_folder.status_writer import correct_status
from launcher.backends.agents import AgentConnection, Event, local_agents, slurm_agents, ssh_agents
from launcher.backends.machines import Machines, world_of
from launcher.backends.select import Choice, port_seed
from launcher.command_lines import LaunchSpec, forwarded_environment
from launcher.commands.machine_options import add_machine_options, chosen_backend, machines_of
from launcher.commands.parser import SubParsers, add_run_file_command
from launcher.commands.planning import plan_run
from launcher.controller import Controller
from launcher.exit_report import closing_lines, outcome_of
from launcher.host.folders import current_folder
from launcher.planner.world import World
from launcher.protocol import Message
from launcher.timeouts import SILENCE_SECONDS

MAX_NAMED_HOSTS = 4
"""More machines than this are counted in messages, not named."""


def add_parser(commands: SubParsers) -> None:
    """Declare the command's options."""
    parser = add_run_file_command(commands, "run")
    add_machine_options(parser)
    parser.add_argument(
        "--launcher",
        choices=("torchrun", "deepspeed"),
        default="torchrun",
        help="the program that starts the ranks of a machine (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="start from the beginning in a used run folder")
    parser.set_defaults(command=command)


def command(options: argparse.Namespace, overrides: list[str]) -> int:
    """Start the ranks, wait for them, and return the exit status that stands for the run.

    Raises LaunchError and ConfigError, both with status 2, for everything that is wrong before a rank is started.
    """
    run = load_run(options.run, overrides)
    choice = chosen_backend(options, run)
    machines = machines_of(options, run, choice)
    events: queue.Queue[Event] = queue.Queue()
    controller = Controller(_agents(choice, machines, events), events)
    folder = current_folder(os.environ) / run.output_dir
    with controller.agents_open():
        ready = controller.preflight(**_preflight_request(options, run, choice, machines))
        if controller.stop_signal is not None:
            say(f"error: stopped by {controller.stop_signal.name} before anything was started")
            return STOPPED_EARLY
        world = world_of(ready, machines, options.launcher)
        plan_run(run, world)
        before, launch = highest_attempt(folder), _launch_spec(options, overrides, world, machines, ready, folder)
        _make_logs(Path(launch.logs))
        say(announcement(choice, world, launch, ready))
        controller.start(launch, machines.hosts)
        controller.wait()
    return _report(controller, folder, before, Path(launch.logs))


def _report(controller: Controller, folder: Path, before: int, logs: Path) -> int:
    """Say how the start ended, correct status.json where the ranks could not know it, and return the exit status."""
    written = exit_of_this_start(folder, before)
    outcome = outcome_of(controller.rank_exits, written, controller.stop_signal, controller.start_failure)
    for line in closing_lines(outcome, logs, controller.start_failure):
        say(line)
    try:
        correct_status(folder, before, outcome.status, outcome.told)
    except StorageError as error:  # a full disk may be what the ranks have failed of
        complain(error)
    return outcome.status


def _preflight_request(
    options: argparse.Namespace, run: RunConfig, choice: Choice, machines: Machines
) -> dict[str, object]:
    """Return the fields of the preflight order (see `launcher.protocol`) that are the same for every node."""
    over_ssh = choice.backend == "hostfile"
    return {
        "environment": forwarded_environment(os.environ) if over_ssh else {},
        "cpu": options.cpu,
        "ranks": machines.ranks_per_node,
        "files": needed_files(options.run, run),
        "port": options.port,
        "job": port_seed(choice, Path(run.output_dir), os.environ),
        "silence": SILENCE_SECONDS if over_ssh else None,
    }


def _agents(choice: Choice, machines: Machines, events: "queue.Queue[Event]") -> list[AgentConnection]:
    if choice.backend == "slurm":
        return slurm_agents(machines.hosts, os.environ, events)
    if choice.backend == "hostfile":
        return ssh_agents(machines.hosts, str(current_folder(os.environ)), os.environ, events)
    return local_agents(events)


def needed_files(run_file: str, run: RunConfig) -> list[str]:
    """Return the paths that every node must have: the run file, and those of its values that are paths on this machine.

    A bundle stands for the files that were collected in it.
    """
    if run.bundle:
        return [run_file, run.bundle]
    source = run.data.source
    sources = list(source.values()) if isinstance(source, dict) else [source]
    paths = (run.model.name, run.engine.deepspeed, *sources)
    return [run_file, *(path for path in paths if path and there(Path(path)))]


def _launch_spec(
    options: argparse.Namespace,
    overrides: Sequence[str],
    world: World,
    machines: Machines,
    ready: Mapping[int, Message],
    folder: Path,
) -> LaunchSpec:
    return LaunchSpec(
        launcher=options.launcher,
        nodes=world.nodes,
        ranks_per_node=world.local_ranks,
        master=machines.hosts[0] if world.nodes > 1 else "127.0.0.1",
        port=ready[0]["port"],
        run_id=uuid.uuid4().hex,
        program=("train", options.run, *(["--overwrite"] if options.overwrite else []), *overrides),
        logs=str(folder / LOGS),
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


def announcement(choice: Choice, world: World, launch: LaunchSpec, ready: Mapping[int, Message]) -> str:
    """Return the one line that announces a start: backend, reason, ranks, machines, threads and port."""
    reports = [report for _, report in sorted(ready.items())]
    ranks = f"{world.ranks} {'GPU' if world.device == 'cuda' else 'CPU'} rank{'s' if world.ranks > 1 else ''}"
    hosts = [report["host"] for report in reports]
    named = len(hosts) <= MAX_NAMED_HOSTS
    where = ", ".join(hosts) if named else f"{len(hosts)} machines, {hosts[0]} to {hosts[-1]}"
    threads = " or ".join(dict.fromkeys(report["threads"] for report in reports))
    place = f" on {where}" if world.nodes > 1 else ""
    started = f"{launch.launcher} starts {ranks}{place}, {threads}, port {launch.port}"
    return f"ftlaunch: {choice.backend} ({choice.why}): {started}"
