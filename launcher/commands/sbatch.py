"""`ftlaunch sbatch`: render the batch script of one run, show it or submit it."""

import argparse
import shlex
import sysconfig
from pathlib import Path

from ftsys.config import RunConfig, load_run
from ftsys.errors import LaunchError
from launcher.commands.shared import Commands, add_command, planned
from launcher.planner.world import World
from launcher.slurm.batch_script import Job, render
from launcher.slurm.job import submit

REPEATED = (("--module", "NAME", "a module to load"), ("--mount", "FOLDER", "a folder for the container to see"))


def add_parser(commands: Commands) -> None:
    """Declare the command's words."""
    parser = add_command(commands, "sbatch", "submit a run to SLURM, or show the script that would be submitted")
    parser.add_argument("run", metavar="RUN.toml", help="the run file")
    parser.add_argument("--dry-run", action="store_true", help="print the script and submit nothing")
    parser.add_argument("--nodes", type=int, help="default: launch.nodes")
    parser.add_argument("--gpus-per-node", type=int, default=None, help="default: launch.gpus_per_node")
    parser.add_argument("--cpus-per-node", type=int, default=0, help="cores of each node")
    parser.add_argument("--cpu", action="store_true", help="one CPU rank a node")
    parser.add_argument("--time", default=Job.time, help=f"as sbatch reads it (default: {Job.time})")
    parser.add_argument("--gres", default="", help="such as gpu:a100:4, instead of --gpus-per-node")
    for name in ("job-name", "partition", "account", "constraint"):
        parser.add_argument(f"--{name}", default="", help="as sbatch reads it")
    parser.add_argument("--warning-seconds", type=int, default=Job.warning_seconds, help="before the time limit")
    parser.add_argument("--max-restarts", type=int, default=Job.max_restarts, help="how often it may be requeued")
    parser.add_argument("--venv", default="", metavar="FOLDER", help="default: the active one, else .venv")
    parser.add_argument("--container", choices=("none", "apptainer", "enroot"), default="none", help="default: none")
    parser.add_argument("--image", default="", help="the container's image")
    for name, metavar, help_text in REPEATED:
        parser.add_argument(name, action="append", default=[], metavar=metavar, help=f"{help_text}; may be repeated")
    parser.set_defaults(command=command)


def command(options: argparse.Namespace, overrides: list[str]) -> int:
    """Print the script, or submit it and say how to follow the job.

    Raises ConfigError for a run that cannot work, LaunchError for a value that cannot be passed on.
    """
    run = load_run(options.run, overrides)
    job = _job(options, run, overrides)
    text = render(job)
    if not options.gres:
        _check_world(run, job)
    if options.dry_run:
        print(text, end="")
        return 0
    folder = Path(job.run_folder)
    number = submit(text, folder)
    print(f"job {number}: {job.name}, {job.nodes} node(s); results in {folder}")
    place = shlex.quote(run.output_dir)
    for words, what in (
        (f"status {place}", "how it stands"),
        (f"logs {place} --follow", "what it writes"),
        (f"cancel {place}", "end it"),
    ):
        print(f"  ftlaunch {words:<{len(place) + 14}}   {what}")
    return 0


def _job(options: argparse.Namespace, run: RunConfig, overrides: list[str]) -> Job:
    asked = options.gpus_per_node if options.gpus_per_node is not None else run.launch.gpus_per_node
    if options.cpu and (options.gres or options.gpus_per_node):
        raise LaunchError("--cpu asks for no GPU: leave it out, or leave out --gres and --gpus-per-node.")
    if not options.cpu and not options.gres and asked == "auto":
        raise LaunchError("nothing says what a node is to have: write --gpus-per-node N, --gres, or --cpu.")
    return Job(
        name=options.job_name or Path(options.run).stem,
        words=(options.run, *overrides),
        folder=str(Path.cwd()),
        run_folder=str(Path(run.output_dir).absolute()),
        scripts=str(scripts_folder()),
        nodes=options.nodes if options.nodes is not None else run.launch.nodes,
        gpus_per_node=0 if options.cpu or options.gres else int(asked),
        cpus_per_node=options.cpus_per_node,
        time=options.time,
        partition=options.partition,
        account=options.account,
        gres=options.gres,
        constraint=options.constraint,
        warning_seconds=options.warning_seconds,
        max_restarts=options.max_restarts,
        modules=tuple(options.module),
        venv=options.venv and str(Path(options.venv).absolute()),
        container=options.container,
        image=options.image,
        mounts=tuple(options.mount),
    )


def _check_world(run: RunConfig, job: Job) -> None:
    """What could not work there is found before the queue."""
    local = job.gpus_per_node or 1
    planned(
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


def scripts_folder() -> Path:
    """The folder with job.sh and node.sh: the checkout's, else the one that the wheel installed."""
    checkout = Path(__file__).parents[2] / "slurm"
    installed = Path(sysconfig.get_path("data")) / "share" / "ftsys" / "slurm"
    for folder in (checkout, installed):
        if (folder / "job.sh").exists():
            return folder
    raise LaunchError(f"job.sh is neither in {checkout} nor in {installed}: install ftsys again.")
