"""`ftlaunch doctor`: look at every node of a run, and say what would fail later. Changes nothing."""

import argparse
import os
import socket
import time
from pathlib import Path

from ftsys.config import RunConfig, load_run
from launcher.backends.machines import Machines
from launcher.backends.select import Choice, job_of
from launcher.command_lines import passed_environment
from launcher.commands.shared import Commands, add_command
from launcher.commands.where import add_where_options, chosen_backend, machines_of
from launcher.doctor.facts import Asked
from launcher.host.ports import ephemeral_ports, ports_of_job
from launcher.planner.world import visible_gpus


def add_parser(commands: Commands) -> None:
    """Declare the command's words."""
    parser = add_command(commands, "doctor", "look at every node and say what would fail later; changes nothing")
    parser.add_argument("run", metavar="RUN.toml", help="the run file")
    add_where_options(parser)
    parser.add_argument("--seconds", type=float, default=Asked.seconds, help="for all probes (default: %(default)g)")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.set_defaults(command=command, launcher="torchrun")


def command(options: argparse.Namespace, overrides: list[str]) -> int:
    """Print the findings; returns 2 where something would fail, else 0.

    Raises ConfigError and LaunchError, with 2, for a run file or a list of nodes that cannot be used.
    """
    # Here, so that other commands need not wait for it.
    from launcher.doctor.checks import judge
    from launcher.doctor.findings import exit_status, show, to_json
    from launcher.doctor.probes import examine

    start = time.monotonic()
    asked = _asked(options, load_run(options.run, overrides))
    findings = judge(examine(asked, passed_environment(os.environ) if asked.backend == "hostfile" else {}))
    seconds = time.monotonic() - start
    print(to_json(findings, asked.nodes, seconds) if options.json else show(findings, seconds), end="")
    return exit_status(findings)


def _asked(options: argparse.Namespace, run: RunConfig) -> Asked:
    from launcher.doctor.requirements import requirements, versions_tested

    choice = chosen_backend(options, run)
    machines = machines_of(options, run, choice)
    return Asked(
        run,
        choice.backend,
        _seats(machines, options.cpu),
        port=options.port if options.port is not None else _first_port(choice, run),
        port_is_named=options.port is not None,
        ranks_per_node=machines.ranks_per_node,
        cpu=options.cpu,
        seconds=options.seconds,
        requirements=requirements(),
        tested=versions_tested(),
    )


def _first_port(choice: Choice, run: RunConfig) -> int:
    """The port that the run will take, if it is free."""
    return next(ports_of_job(job_of(choice, Path(run.output_dir), os.environ), ephemeral_ports()))


def _seats(machines: Machines, cpu: bool) -> tuple[str, ...]:
    """The hosts, and a single one twice where it runs several ranks: an all-reduce takes two."""
    hosts = machines.hosts
    here = len(hosts) == 1 and hosts[0] == socket.gethostname()
    ranks = machines.ranks_per_node or (len(visible_gpus(os.environ)) if here and not cpu else 1)
    return hosts * 2 if len(hosts) == 1 and ranks > 1 else hosts
