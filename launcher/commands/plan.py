"""`ftlaunch plan`: every choice that a run leaves open, with its reason, and what each way to compute it needs."""

import argparse
import json

from ftsys.config import RunConfig, load_run
from ftsys.errors import DONE
from launcher.commands.shared import (
    Commands,
    add_command,
    add_gpu_options,
    add_world_options,
    asked_world,
    planned,
)
from launcher.planner.choices import settled_by_json
from launcher.planner.deepspeed_config import read_user_json
from launcher.planner.model_shape.of_run import shape_of_run
from launcher.planner.search import Fitting, fitting
from launcher.planner.show_candidates import as_values, show_candidates
from launcher.planner.show_plan import show_plan
from launcher.planner.world import World


def add_parser(commands: Commands) -> None:
    """Declare the command's words."""
    parser = add_command(commands, "plan", "show every choice that a run leaves open, resolved, with its reason")
    parser.add_argument("run", metavar="RUN.toml", help="the run file")
    add_world_options(parser)
    add_gpu_options(parser)
    parser.add_argument("--train-rows", type=int, help="examples of the training split, for the steps to be counted")
    parser.add_argument("--all", action="store_true", help="every candidate, in every precision and micro-batch")
    parser.add_argument("--json", action="store_true", help="print plan.json, with all candidates, instead of lines")
    parser.set_defaults(command=command)


def command(options: argparse.Namespace, overrides: list[str]) -> int:
    """Print the plan; returns the exit status. Raises ConfigError for a run that cannot work."""
    run = load_run(options.run, overrides)
    world = asked_world(run, options)
    plan, _ = planned(run, world, options.train_rows)
    found, unknown = _candidates(run, world)
    if options.json:
        values = {**json.loads(plan.to_json()), **(as_values(found) if found else {"memory_unknown": unknown})}
        print(json.dumps(values, indent=2))
        return DONE
    print(show_plan(plan), end="")
    print()
    print(show_candidates(found, options.all) if found else f"memory        not known: {unknown}\n", end="")
    return DONE


def _candidates(run: RunConfig, world: World) -> tuple[Fitting | None, str]:
    """The candidates with all that the settings rule out, or why there are none."""
    shape, unknown = shape_of_run(run)
    if shape is None:
        return None, unknown
    settled = settled_by_json(read_user_json(run.engine.deepspeed)) if run.engine.deepspeed else {}
    return fitting(run, world, shape, settled, everything=True), ""
