"""Runs `ftlaunch sbatch`: renders the batch script of one run, and prints or submits it."""

import argparse
import dataclasses
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from ftsys.config import RunConfig, load_run
from ftsys.console.printer import say, show
from ftsys.errors import DONE, LaunchError
from ftsys.shipped import shipped
from launcher.commands.parser import SubParsers, add_run_file_command
from launcher.commands.planning import plan_run
from launcher.host.folders import current_folder
from launcher.planner.world import World
from launcher.slurm.batch_script import Job, render
from launcher.slurm.job import submit
from launcher.slurm.site import CPUS_PER_GPU, cpus_for_gpus, gpus_in

REPEATED = (
    ("--module", "NAME", "an environment module to load"),
    ("--mount", "FOLDER", "a folder to mount in the container"),
)


def add_parser(commands: SubParsers) -> None:
    """Declare the command's options."""
    parser = add_run_file_command(commands, "sbatch")
    parser.add_argument("--dry-run", action="store_true", help="print the script and submit nothing")
    add_job_options(parser)
    parser.set_defaults(command=command)


def add_job_options(parser: argparse._ActionsContainer) -> None:
    """Declare the options that `job_of` reads: resources, restarts and the environment of a job."""
    _add_resource_options(parser)
    _add_restart_options(parser)
    _add_environment_options(parser)


def _add_resource_options(parser: argparse._ActionsContainer) -> None:
    add = parser.add_argument
    add("--nodes", type=int, metavar="N", help="number of nodes (default: launch.nodes)")
    add("--gpus-per-node", type=int, metavar="N", help="GPUs of each node (default: launch.gpus_per_node)")
    add(
        "--cpus-per-node",
        type=int,
        metavar="N",
        default=0,
        help="CPUs of each node (default: the site's for each GPU, else the GPUs' share of a node, else "
        f"{CPUS_PER_GPU} for each GPU; with --cpu the partition's)",
    )
    add("--cpu", action="store_true", help="compute on CPUs, with one rank on each node")
    add("--gres", default="", help="such as gpu:a100:4, instead of --gpus-per-node")
    add("--time", default=Job.time, help="time limit, in sbatch's format (default: %(default)s)")
    for name in ("job-name", "partition", "account", "constraint"):
        add(f"--{name}", default="", help="passed to sbatch")


def _add_restart_options(parser: argparse._ActionsContainer) -> None:
    seconds, restarts = Job.warning_seconds, Job.max_restarts
    add = parser.add_argument
    add(
        "--warning-seconds",
        type=int,
        metavar="S",
        default=seconds,
        help="seconds before the time limit at which the run saves a checkpoint (default: %(default)s)",
    )
    add(
        "--max-restarts",
        type=int,
        metavar="N",
        default=restarts,
        help="how often the job may go back into the queue (default: %(default)s)",
    )


def _add_environment_options(parser: argparse._ActionsContainer) -> None:
    add = parser.add_argument
    add("--venv", default="", metavar="FOLDER", help="virtual environment (default: the active one, else .venv)")
    add(
        "--container",
        choices=("none", "apptainer", "enroot"),
        default="none",
        help="container to run in (default: %(default)s)",
    )
    add("--image", default="", help="image of the container")
    for name, metavar, help_text in REPEATED:
        add(name, action="append", default=[], metavar=metavar, help=f"{help_text}; may be repeated")


def command(options: argparse.Namespace, overrides: list[str]) -> int:
    """Print the script, or submit it and print how to follow the job.

    Raises ConfigError for a run that cannot work, LaunchError for a value that cannot be passed on.
    """
    run = load_run(options.run, overrides)
    job = job_of(options, run, options.run, overrides)
    text = render(job)
    if options.dry_run:
        show(text, end="")
        return DONE
    folder = Path(job.run_folder)
    number = submit(text, folder)
    show(f"job {number}: {job.name}, {job.nodes} node(s); results in {folder}")
    place = shlex.quote(run.output_dir)
    for arguments, what in (
        (f"status {place}", "show its state"),
        (f"logs {place} --follow", "follow its log"),
        (f"cancel {place}", "end it"),
    ):
        show(f"  ftlaunch {arguments:<{len(place) + 14}}   {what}")
    return DONE


def job_of(options: argparse.Namespace, run: RunConfig, run_file: str, overrides: Sequence[str]) -> Job:
    """Return the job that the options of `add_job_options` describe.

    Raises ConfigError for a run that cannot work on its nodes, LaunchError for options that do not fit together.
    """
    job = _with_cpus(_job(options, run, run_file, overrides))
    _check_venv(options.venv, options.dry_run)
    if not options.gres:
        _check_world(run, job)
    return job


def _job(options: argparse.Namespace, run: RunConfig, run_file: str, overrides: Sequence[str]) -> Job:
    gpus = options.gpus_per_node if options.gpus_per_node is not None else run.launch.gpus_per_node
    if options.cpu and (options.gres or options.gpus_per_node):
        raise LaunchError("--cpu asks for no GPU: leave it out, or leave out --gres and --gpus-per-node.")
    if not options.cpu and not options.gres and gpus == "auto":
        raise LaunchError("the number of GPUs on each node is not set: write --gpus-per-node N, --gres, or --cpu.")
    return Job(
        name=options.job_name or Path(run_file).stem,
        arguments=(run_file, *overrides),
        folder=str(current_folder(os.environ)),
        run_folder=str(current_folder(os.environ) / run.output_dir),
        scripts=str(shipped("slurm/job.sh").parent),
        nodes=options.nodes if options.nodes is not None else run.launch.nodes,
        gpus_per_node=0 if options.cpu or options.gres else int(gpus),
        cpus_per_node=options.cpus_per_node,
        time=options.time,
        partition=options.partition,
        account=options.account,
        gres=options.gres,
        constraint=options.constraint,
        warning_seconds=options.warning_seconds,
        max_restarts=options.max_restarts,
        modules=tuple(options.module),
        venv=options.venv and str(current_folder(os.environ) / options.venv),
        container=options.container,
        image=options.image,
        mounts=tuple(options.mount),
    )


def _check_venv(venv: str, dry_run: bool) -> None:
    """Raise LaunchError for a --venv without a Python. A script that is only printed may be for another machine."""
    python = Path(venv).absolute() / "bin" / "python"
    if not venv or python.exists():
        return
    if not dry_run:
        raise LaunchError(f"--venv {venv!r}: {str(python)!r} does not exist. Name the folder of a virtual environment.")
    say(f"note: {str(python)!r} does not exist on this machine")


def _with_cpus(job: Job) -> Job:
    """Ask for CPUs where the command line names none: without, many sites give a job one CPU, whatever its GPUs."""
    ranks = job.gpus_per_node or gpus_in(job.gres)
    if job.cpus_per_node or ranks < 1:
        return job
    choice = cpus_for_gpus(ranks, job.partition)
    cpus = max(choice.cpus, ranks) if choice.cpus else 0
    if cpus:
        say(f"ftlaunch: {cpus} CPUs of each node: {choice.why}; --cpus-per-node asks for others")
    return dataclasses.replace(job, cpus_per_node=cpus)


def _check_world(run: RunConfig, job: Job) -> None:
    """Find what cannot work on those nodes before the job waits in the queue. Raises ConfigError."""
    local = job.gpus_per_node or 1
    plan_run(
        run,
        World(
            job.nodes * local,
            job.nodes,
            local,
            "cuda" if job.on_gpus else "cpu",
            bf16_supported=True,
            launcher="torchrun",
        ),
    )
