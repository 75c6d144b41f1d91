"""`ftlaunch`: what a run will do on a machine, before it is started. Answers without torch."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ftsys.config import RunConfig, load_run, split_overrides
from ftsys.errors import DONE, ConfigError, FtsysError
from launcher.deepspeed_config import deepspeed_config, file_name, merged_config, read_user_json, to_text
from launcher.plan import Plan, World, make_plan
from launcher.shipped import write_shipped
from launcher.show import show_plan
from launcher.world import cpu_has_bf16, seen_gpus, this_machine

_OVERRIDES = "A value of the run file is overridden as --section.key VALUE; the command line wins over the file."


def build_parser() -> argparse.ArgumentParser:
    """The command line of `ftlaunch`, but for the run file's overrides."""
    parser = argparse.ArgumentParser(prog="ftlaunch", description=__doc__, epilog=_OVERRIDES, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    plan = commands.add_parser("plan", help="show every choice that a run leaves open, resolved, with its reason")
    config = commands.add_parser("config", help="print the DeepSpeed file that a run makes")
    for command in (plan, config):
        command.allow_abbrev = False
        command.epilog = _OVERRIDES
        command.add_argument("run", metavar="RUN.toml", nargs="?" if command is config else None, help="the run file")
        command.add_argument("--nodes", type=int, help="machines (default: launch.nodes)")
        command.add_argument("--gpus-per-node", type=int, help="ranks a machine (default: launch.gpus_per_node)")
        command.add_argument("--cpu", action="store_true", help="plan for CPUs, even where GPUs are seen")
        command.add_argument(
            "--train-rows", type=int, help="examples of the training split, for the steps to be counted"
        )
    plan.add_argument("--json", action="store_true", help="print plan.json instead of lines")
    config.add_argument("--output", type=Path, help="a file, or a folder in which its name says all that it turns on")
    config.add_argument("--write-shipped", type=Path, metavar="FOLDER", help="write the project's configs/deepspeed")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run `ftlaunch` and return its exit status; errors a user can act on are printed without a traceback."""
    own, overrides = split_overrides(sys.argv[1:] if words is None else words)
    options = build_parser().parse_args(own)
    try:
        return _config(options, overrides) if options.command == "config" else _plan(options, overrides)
    except FtsysError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return error.exit_status


def _plan(options: argparse.Namespace, overrides: list[str]) -> int:
    run = load_run(options.run, overrides)
    plan, _ = _planned(run, _world(run, options), options.train_rows)
    print(plan.to_json() if options.json else show_plan(plan), end="")
    return DONE


def _config(options: argparse.Namespace, overrides: list[str]) -> int:
    if options.write_shipped:
        with _writing(options.write_shipped):
            print(f"{len(write_shipped(options.write_shipped))} files written to {options.write_shipped}")
        return DONE
    if options.run is None:
        raise ConfigError("no run file was given: write `ftlaunch config RUN.toml`.")
    run = load_run(options.run, overrides)
    # Who asks for DeepSpeed's file means to start with DeepSpeed.
    plan, text = _planned(run, replace(_world(run, options), launcher="deepspeed"), options.train_rows)
    if options.output is None:
        print(text, end="")
        return DONE
    path = options.output / file_name(plan) if options.output.is_dir() else options.output
    with _writing(path):
        path.write_text(text, encoding="utf-8")
    print(path)
    return DONE


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be written ({error.strerror}): name another place.") from error


def _planned(run: RunConfig, world: World, train_rows: int | None) -> tuple[Plan, str]:
    """The plan and the DeepSpeed file's text (empty where the backend reads none); a user's own file is checked too."""
    user_json = read_user_json(run.engine.deepspeed) if run.engine.deepspeed else None
    plan = make_plan(run, world, train_rows, deepspeed_json=user_json)
    if user_json is not None:
        return plan, to_text(merged_config(user_json, run, plan))
    wanted = plan.backend == "deepspeed" or world.launcher == "deepspeed"
    return plan, to_text(deepspeed_config(plan, run)) if wanted else ""


def _world(run: RunConfig, options: argparse.Namespace) -> World:
    """The world that the options and [launch] ask for, on machines like this one."""
    gpus = 0 if options.cpu else seen_gpus()
    nodes = options.nodes if options.nodes is not None else run.launch.nodes
    asked = options.gpus_per_node if options.gpus_per_node is not None else run.launch.gpus_per_node
    local = asked if asked != "auto" else max(1, gpus)
    ranks = nodes * local
    if gpus:
        return replace(this_machine({}, device="cuda"), ranks=ranks, nodes=nodes, local_ranks=local)
    return World(ranks=ranks, nodes=nodes, local_ranks=local, device="cpu", bf16_supported=cpu_has_bf16())
