"""`ftlaunch plan`: every choice that a run leaves open, resolved, with its reason."""

import argparse

from ftsys.config import load_run
from ftsys.errors import DONE
from launcher.commands.shared import Commands, add_command, add_world_options, asked_world, planned
from launcher.show import show_plan


def add_parser(commands: Commands) -> None:
    """Declare the command's words."""
    parser = add_command(commands, "plan", "show every choice that a run leaves open, resolved, with its reason")
    parser.add_argument("run", metavar="RUN.toml", help="the run file")
    add_world_options(parser)
    parser.add_argument("--train-rows", type=int, help="examples of the training split, for the steps to be counted")
    parser.add_argument("--json", action="store_true", help="print plan.json instead of lines")
    parser.set_defaults(command=command)


def command(options: argparse.Namespace, overrides: list[str]) -> int:
    """Print the plan; returns the exit status. Raises ConfigError for a run that cannot work."""
    run = load_run(options.run, overrides)
    plan, _ = planned(run, asked_world(run, options), options.train_rows)
    print(plan.to_json() if options.json else show_plan(plan), end="")
    return DONE
