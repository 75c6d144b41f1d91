"""Runs `ftlaunch plan`: resolves every choice that a run leaves open, and shows reasons and candidates."""

import argparse
import json

from ftsys.config import RunConfig, load_run
from ftsys.console.printer import show
from ftsys.errors import DONE
from launcher.commands.parser import SubParsers, add_run_file_command
from launcher.commands.planning import (
    add_gpu_options,
    add_rows_option,
    add_world_options,
    plan_run,
    requested_world,
)
from launcher.planner.choices import settled_by_json
from launcher.planner.deepspeed_config import user_json_of
from launcher.planner.model_shape.of_run import shape_of_run
from launcher.planner.search import Fitting, fitting
from launcher.planner.show_candidates import as_values, show_candidates
from launcher.planner.show_plan import show_plan
from launcher.planner.world import World


def add_parser(commands: SubParsers) -> None:
    """Declare the command's options."""
    parser = add_run_file_command(commands, "plan")
    add_world_options(parser)
    add_gpu_options(parser)
    add_rows_option(parser)
    parser.add_argument(
        "--all", action="store_true", help="show every candidate, in every precision and micro-batch size"
    )
    parser.add_argument("--json", action="store_true", help="print plan.json with all candidates instead of a table")
    parser.set_defaults(command=command)


def command(options: argparse.Namespace, overrides: list[str]) -> int:
    """Print the plan; returns the exit status. Raises ConfigError for a run that cannot work."""
    run = load_run(options.run, overrides)
    world = requested_world(run, options)
    plan, _ = plan_run(run, world, options.train_rows)
    found, unknown = _candidates(run, world)
    if options.json:
        values = {**json.loads(plan.to_json()), **(as_values(found) if found else {"memory_unknown": unknown})}
        show(json.dumps(values, indent=2))
        return DONE
    show(show_plan(plan), end="")
    show()
    show(show_candidates(found, options.all) if found else f"memory        not known: {unknown}\n", end="")
    return DONE


def _candidates(run: RunConfig, world: World) -> tuple[Fitting | None, str]:
    """Return all candidates, also those that the settings rule out, or the reason why there are none."""
    shape, unknown = shape_of_run(run)
    if shape is None:
        return None, unknown
    user_json = user_json_of(run)
    settled = settled_by_json(user_json) if user_json is not None else {}
    return fitting(run, world, shape, settled, everything=True), ""
