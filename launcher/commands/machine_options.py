"""Declares the options that name a command's machines, and finds those machines."""

import argparse
import os
import shutil
import socket

from ftsys.config import RunConfig
from ftsys.errors import LaunchError
from launcher.backends.agents import allocated_hosts
from launcher.backends.machines import Machines, WorldRequest, allocated_machines, listed_machines, local_machine
from launcher.backends.select import Choice, choose_backend


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `chosen_backend` and `machines_of` read."""
    parser.add_argument(
        "--backend",
        choices=("auto", "local", "hostfile", "slurm"),
        help="how to reach the machines (default: launch.backend)",
    )
    parser.add_argument("--hostfile", metavar="FILE", help="a text file with a line `name slots=N` for each host")
    parser.add_argument(
        "--nodes", type=int, metavar="N", help="number of machines (default: all of the hostfile or the allocation)"
    )
    parser.add_argument(
        "--gpus-per-node", type=int, metavar="N", help="ranks on each machine (default: launch.gpus_per_node)"
    )
    parser.add_argument("--cpu", action="store_true", help="compute on CPUs, even if the machines have GPUs")
    parser.add_argument(
        "--port", type=int, metavar="N", help="rendezvous port of the ranks (default: derived from the job)"
    )


def chosen_backend(options: argparse.Namespace, run: RunConfig) -> Choice:
    """Return the backend that the options or [launch] ask for. Raises LaunchError if it cannot start anything here."""
    requested, source = (options.backend, "--backend") if options.backend else (run.launch.backend, "launch.backend")
    return choose_backend(requested, source, options.hostfile, os.environ, shutil.which("srun") is not None)


def machines_of(options: argparse.Namespace, run: RunConfig, choice: Choice) -> Machines:
    """Return the machines of the chosen backend. Raises LaunchError and ConfigError for what they cannot provide."""
    if getattr(options, "launcher", "torchrun") == "deepspeed" and choice.backend != "local":
        raise LaunchError(
            f"--launcher deepspeed starts one machine, but the backend is {choice.backend!r} ({choice.why}): "
            "leave it out. torchrun starts DeepSpeed's engine too, with --engine.backend deepspeed."
        )
    request = WorldRequest.read(options.nodes, options.gpus_per_node, run.launch)
    if choice.backend == "slurm":
        return allocated_machines(allocated_hosts(os.environ), request)
    if choice.backend == "hostfile":
        return listed_machines(options.hostfile, request)
    return local_machine(socket.gethostname(), request)
