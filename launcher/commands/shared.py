"""What several commands share: the options that describe a world, and the plan that comes of them."""

import argparse
from dataclasses import replace
from typing import Protocol

from ftsys.config import RunConfig
from launcher.deepspeed_config import deepspeed_config, merged_config, read_user_json, to_text
from launcher.plan import Plan, World, make_plan
from launcher.world import cpu_has_bf16, seen_gpus, this_machine

OVERRIDES = "A value of the run file is overridden as --section.key VALUE; the command line wins over the file."


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


def asked_world(run: RunConfig, options: argparse.Namespace) -> World:
    """The world that the options and [launch] ask for, on machines like this one."""
    gpus = 0 if options.cpu else seen_gpus()
    nodes = options.nodes if options.nodes is not None else run.launch.nodes
    asked = options.gpus_per_node if options.gpus_per_node is not None else run.launch.gpus_per_node
    local = asked if asked != "auto" else max(1, gpus)
    ranks = nodes * local
    if gpus:
        return replace(this_machine({}, device="cuda"), ranks=ranks, nodes=nodes, local_ranks=local)
    return World(ranks=ranks, nodes=nodes, local_ranks=local, device="cpu", bf16_supported=cpu_has_bf16())


def planned(run: RunConfig, world: World, train_rows: int | None = None) -> tuple[Plan, str]:
    """The plan and the DeepSpeed file's text (empty where the backend reads none); a user's own file is checked too.

    Raises ConfigError with everything that cannot work in this world.
    """
    user_json = read_user_json(run.engine.deepspeed) if run.engine.deepspeed else None
    plan = make_plan(run, world, train_rows, deepspeed_json=user_json)
    if user_json is not None:
        return plan, to_text(merged_config(user_json, run, plan))
    wanted = plan.backend == "deepspeed" or world.launcher == "deepspeed"
    return plan, to_text(deepspeed_config(plan, run)) if wanted else ""
