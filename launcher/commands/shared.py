"""What several commands share: the options that describe a world, and the plan that comes of them."""

import argparse
from dataclasses import replace
from typing import Protocol

from ftsys.config import RunConfig
from ftsys.errors import ConfigError
from launcher.cli import OVERRIDES
from launcher.planner.deepspeed_config import deepspeed_config, merged_config, read_user_json, to_text
from launcher.planner.gpus import GPUS, gpu_named, parse_memory
from launcher.planner.model_shape.of_run import shape_of_run
from launcher.planner.plan import Plan, World, make_plan
from launcher.planner.world import cpu_has_bf16, seen_gpus, this_machine


class Commands(Protocol):
    """What argparse's `add_subparsers` returns, as far as it is used here."""

    def add_parser(self, name: str, **options: object) -> argparse.ArgumentParser:
        """Make a sub-command."""


def add_command(commands: Commands, name: str, help_text: str) -> argparse.ArgumentParser:
    """A sub-command that takes overrides of the run file, which its help says."""
    description = f"{help_text[0].upper()}{help_text[1:]}."
    return commands.add_parser(name, help=help_text, description=description, epilog=OVERRIDES, allow_abbrev=False)


def add_world_options(parser: argparse.ArgumentParser) -> None:
    """The options that `asked_world` reads."""
    parser.add_argument("--nodes", type=int, help="machines (default: launch.nodes)")
    parser.add_argument("--gpus-per-node", type=int, help="ranks a machine (default: launch.gpus_per_node)")
    parser.add_argument("--cpu", action="store_true", help="plan for CPUs, even where GPUs are seen")


def add_gpu_options(parser: argparse.ArgumentParser) -> None:
    """The options that describe GPUs which need not be in this machine."""
    parser.add_argument("--gpu", metavar="NAME", help=f"plan for these GPUs: {', '.join(GPUS)}")
    parser.add_argument("--gpu-memory", metavar="SIZE", help="plan for GPUs of this much memory, such as 24GiB")


def asked_world(run: RunConfig, options: argparse.Namespace) -> World:
    """The world that the options and [launch] ask for, on machines like this one, or with the GPUs that are named.

    Raises ConfigError for a GPU that nobody knows, or for GPUs beside `--cpu`.
    """
    named, size = getattr(options, "gpu", None), getattr(options, "gpu_memory", None)
    if options.cpu and (named or size):
        raise ConfigError("--cpu and --gpu or --gpu-memory exclude each other: leave one out.")
    gpus = 0 if options.cpu else seen_gpus()
    nodes = options.nodes if options.nodes is not None else run.launch.nodes
    asked = options.gpus_per_node if options.gpus_per_node is not None else run.launch.gpus_per_node
    local = asked if asked != "auto" else max(1, gpus)
    if named or size:
        world = _with_gpus(named, size)
    elif gpus:
        world = this_machine({}, device="cuda")
    else:
        world = World(device="cpu", bf16_supported=cpu_has_bf16())
    return replace(world, ranks=nodes * local, nodes=nodes, local_ranks=local)


def _with_gpus(named: str | None, size: str | None) -> World:
    gpu = gpu_named(named) if named else None
    memory = parse_memory(size) if size else gpu.memory if gpu else None
    return World(device="cuda", bf16_supported=gpu.has_bf16 if gpu else True, gpu=named or "", device_memory=memory)


def planned(run: RunConfig, world: World, train_rows: int | None = None) -> tuple[Plan, str]:
    """The plan and the DeepSpeed file's text (empty where the backend reads none); a user's own file is checked too.

    Raises ConfigError with everything that cannot work in this world.
    """
    user_json = read_user_json(run.engine.deepspeed) if run.engine.deepspeed else None
    plan = make_plan(run, world, train_rows, deepspeed_json=user_json, model=shape_of_run(run)[0])
    if user_json is not None:
        return plan, to_text(merged_config(user_json, run, plan))
    wanted = plan.backend == "deepspeed" or world.launcher == "deepspeed"
    return plan, to_text(deepspeed_config(plan, run)) if wanted else ""
