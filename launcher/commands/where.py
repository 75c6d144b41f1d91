"""Which machines a command is about: the options that say it, shared by those that start something there."""

import argparse
import os
import shutil
import socket

from ftsys.config import RunConfig
from ftsys.errors import LaunchError
from launcher.backends.agents import allocated_hosts
from launcher.backends.machines import Asked, Machines, allocated_machines, listed_machines, local_machine
from launcher.backends.select import Choice, choose_backend


def add_where_options(parser: argparse.ArgumentParser) -> None:
    """The options that `chosen_backend` and `machines_of` read."""
    parser.add_argument("--backend", choices=("auto", "local", "hostfile", "slurm"), help="default: launch.backend")
    parser.add_argument("--hostfile", metavar="FILE", help="a line `name slots=N` for each host")
    parser.add_argument("--nodes", type=int, help="machines (default: all of the hostfile or the allocation)")
    parser.add_argument("--gpus-per-node", type=int, help="ranks a machine (default: launch.gpus_per_node)")
    parser.add_argument("--cpu", action="store_true", help="compute on CPUs, even where GPUs are seen")
    parser.add_argument("--port", type=int, help="where the ranks meet (default: derived from the job)")


def chosen_backend(options: argparse.Namespace, run: RunConfig) -> Choice:
    """The backend that the options or [launch] ask for. Raises LaunchError where it cannot start anything here."""
    asked, source = (options.backend, "--backend") if options.backend else (run.launch.backend, "launch.backend")
    return choose_backend(asked, source, options.hostfile, os.environ, shutil.which("srun") is not None)


def machines_of(options: argparse.Namespace, run: RunConfig, choice: Choice) -> Machines:
    """The machines of the chosen backend. Raises LaunchError and ConfigError for what they cannot give."""
    if getattr(options, "launcher", "torchrun") == "deepspeed" and choice.backend != "local":
        raise LaunchError(
            f"--launcher deepspeed starts one machine, the backend is {choice.backend!r} ({choice.why}): leave it out. "
            "torchrun starts DeepSpeed's engine too, by --engine.backend deepspeed."
        )
    asked = Asked.read(options.nodes, options.gpus_per_node, run.launch)
    if choice.backend == "slurm":
        return allocated_machines(allocated_hosts(os.environ), asked)
    if choice.backend == "hostfile":
        return listed_machines(options.hostfile, asked)
    return local_machine(socket.gethostname(), asked)
