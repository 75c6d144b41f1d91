"""Runs `ftlaunch doctor`: checks every node of a run for problems that would make it fail later. Changes nothing."""

import argparse
import os
import socket
import time
from pathlib import Path

from ftsys.config import RunConfig, load_run
from ftsys.console.printer import show
from ftsys.errors import LaunchError
from launcher.backends.machines import Machines
from launcher.backends.select import Choice, port_seed
from launcher.command_lines import forwarded_environment
from launcher.commands.machine_options import add_machine_options, chosen_backend, machines_of
from launcher.commands.parser import SubParsers, add_run_file_command
from launcher.doctor.facts import CheckRequest
from launcher.host.ports import check_port, ephemeral_ports, ports_of_job
from launcher.planner.world import check_slices, visible_gpus
from launcher.timeouts import DOCTOR_MOST_SECONDS


def add_parser(commands: SubParsers) -> None:
    """Declare the command's options."""
    parser = add_run_file_command(commands, "doctor")
    add_machine_options(parser)
    parser.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        default=CheckRequest.seconds,
        help="time limit for all nodes together (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.set_defaults(command=command, launcher="torchrun")


def command(options: argparse.Namespace, overrides: list[str]) -> int:
    """Print the findings; returns 2 if the run would fail, else 0.

    Raises ConfigError and LaunchError, both with status 2, for a run file or a list of nodes that cannot be used.
    """
    # Imported here, so that other commands do not pay for them.
    from launcher.doctor.checks import run_checks
    from launcher.doctor.findings import as_text, exit_status, to_json
    from launcher.doctor.probes import collect_facts

    start = time.monotonic()
    request = _request(options, load_run(options.run, overrides))
    environ = forwarded_environment(os.environ) if request.backend == "hostfile" else {}
    findings = run_checks(collect_facts(request, environ))
    seconds = time.monotonic() - start
    show(to_json(findings, request.nodes, seconds) if options.json else as_text(findings, seconds), end="")
    return exit_status(findings)


def _request(options: argparse.Namespace, run: RunConfig) -> CheckRequest:
    from launcher.doctor.requirements import requirements, versions_tested

    choice = chosen_backend(options, run)
    machines = machines_of(options, run, choice)
    if not 0 < options.seconds <= DOCTOR_MOST_SECONDS:
        raise LaunchError(
            f"--seconds {options.seconds:g} is no time limit: give more than 0, and {DOCTOR_MOST_SECONDS:g} at most."
        )
    return CheckRequest(
        run,
        choice.backend,
        _probe_hosts(machines, options.cpu),
        port=check_port(options.port) if options.port is not None else _first_port(choice, run),
        port_is_named=options.port is not None,
        ranks_per_node=machines.ranks_per_node,
        cpu=options.cpu,
        seconds=options.seconds,
        requirements=requirements(),
        tested=versions_tested(),
    )


def _first_port(choice: Choice, run: RunConfig) -> int:
    """Return the port that the run will take if it is free."""
    return next(ports_of_job(port_seed(choice, Path(run.output_dir), os.environ), ephemeral_ports()))


def _probe_hosts(machines: Machines, cpu: bool) -> tuple[str, ...]:
    """Return the host of each probe: a single host that runs several ranks twice, since an all-reduce needs two.

    Raises LaunchError for several ranks on slices of GPUs.
    """
    hosts = machines.hosts
    here = len(hosts) == 1 and hosts[0] == socket.gethostname()
    gpus = visible_gpus(os.environ) if here and not cpu else ()
    ranks = machines.ranks_per_node or max(1, len(gpus))
    check_slices(gpus, ranks)
    return hosts * 2 if len(hosts) == 1 and ranks > 1 else hosts
