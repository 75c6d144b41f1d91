"""Plans a run for the world that a command's options describe."""

import argparse
from dataclasses import replace

from ftsys.config import RunConfig
from ftsys.config.fields import LARGEST_WHOLE
from ftsys.errors import ConfigError
from launcher.planner.deepspeed_config import deepspeed_config, merged_config, to_text, user_json_of
from launcher.planner.deepspeed_notes import notes_on_json
from launcher.planner.gpus import GPUS, gpu_named, parse_memory
from launcher.planner.model_shape.of_run import shape_of_run
from launcher.planner.plan import Plan, make_plan
from launcher.planner.world import World, cpu_has_bf16, seen_gpus, this_machine


def add_world_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `requested_world` reads, beside those of `add_gpu_options`."""
    parser.add_argument("--nodes", type=int, metavar="N", help="number of machines (default: launch.nodes)")
    parser.add_argument(
        "--gpus-per-node", type=int, metavar="N", help="ranks on each machine (default: launch.gpus_per_node)"
    )
    parser.add_argument("--cpu", action="store_true", help="plan for CPUs, even if this machine has GPUs")


def add_gpu_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that describe GPUs which this machine need not have."""
    parser.add_argument("--gpu", metavar="NAME", help=f"plan for these GPUs: {', '.join(GPUS)}")
    parser.add_argument("--gpu-memory", metavar="SIZE", help="plan for GPUs with this much memory, such as 24GiB")


def add_rows_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that lets a plan count steps."""
    parser.add_argument(
        "--train-rows", type=int, metavar="N", help="number of training examples, from which the steps are counted"
    )


def requested_world(run: RunConfig, options: argparse.Namespace) -> World:
    """Return the world that the options and [launch] ask for, on machines like this one or with the named GPUs.

    Raises ConfigError for an unknown GPU, or for GPUs together with `--cpu`.
    """
    named, size = options.gpu, options.gpu_memory
    if options.cpu and (named or size):
        raise ConfigError("--cpu and --gpu or --gpu-memory exclude each other: leave one out.")
    gpus = 0 if options.cpu else seen_gpus()
    nodes = options.nodes if options.nodes is not None else run.launch.nodes
    ranks = options.gpus_per_node if options.gpus_per_node is not None else run.launch.gpus_per_node
    local = ranks if ranks != "auto" else max(1, gpus)
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


def plan_run(run: RunConfig, world: World, train_rows: int | None = None) -> tuple[Plan, str]:
    """Return the plan and the text of the DeepSpeed file, which is empty if the backend reads none.

    A user's own DeepSpeed file is checked too. Raises ConfigError with everything that cannot work in this world.
    """
    if train_rows is not None and not 0 < train_rows <= LARGEST_WHOLE:
        given = f"--train-rows={str(train_rows)[:40]}"
        raise ConfigError(f"{given} cannot be used: write a whole number above 0, {LARGEST_WHOLE:,} at most.")
    user_json = user_json_of(run)
    plan = make_plan(run, world, train_rows, deepspeed_json=user_json, model=shape_of_run(run)[0])
    if user_json is not None:
        notes = (*plan.notes, *notes_on_json(user_json, run, plan))
        return replace(plan, notes=notes), to_text(merged_config(user_json, run, plan))
    wanted = plan.backend == "deepspeed" or world.launcher == "deepspeed"
    return plan, to_text(deepspeed_config(plan, run)) if wanted else ""
