"""Implements the `ftsys` command: parses arguments, calls one function, and turns errors into an exit status."""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ftsys import __version__
from ftsys.console.entry import run_program
from ftsys.console.printer import complain, say, show
from ftsys.did_you_mean import check_command
from ftsys.errors import BAD_INPUT, DONE, EXIT_STATUSES, FAILED, NOT_OURS, ConfigError, FtsysError, StorageError
from ftsys.fast_import.hooks import begin_fast_import
from ftsys.files.atomic import atomic_write_text
from ftsys.kernels.library_caches import settle_inductor
from ftsys.ranks import has_launcher, is_main_rank, may_complain

if TYPE_CHECKING:
    from ftsys.config import RunConfig  # imported by each command: Ctrl-C is handled before anything slow is imported

WITH_OWN_PARSER = {
    "table": ("ftsys.table.command", "train models x tasks x seeds, and show one table of the results"),
    "calibrate": ("ftsys.calibrate.command", "fit a temperature and thresholds to the model of a finished run"),
    "export": ("ftsys.export.command", "write the model of a finished run for ONNX Runtime or OpenVINO"),
    "report": ("ftsys.html_report.command", "compare runs in a table, or write a page of curves, errors and speed"),
    "watch": ("ftsys.watch.command", "follow runs by their files until they have ended"),
    "sweep": ("ftsys.sweep.command", "search for the best values of keys, with Optuna, over any number of processes"),
    "bench": ("ftsys.bench.command", "measure throughput, together with other implementations"),
    "demo": ("ftsys.demo.command", "train a small model on the synthetic sample and print its metrics"),
    "run-glue": (
        "ftsys.run_glue.command",
        "run the flags of transformers' example script run_glue.py, and print the equivalent run file",
    ),
    "offline-assets": (
        "ftsys.offline.command",
        "fill Hugging Face's caches with GLUE, its metric and a model, for scripts without a network",
    ),
}
"""Commands that parse their own arguments: the module with their `main`, and their help text."""

COMMANDS = ("prepare", "bundle", "train", "evaluate", "predict", "config", "verify", *WITH_OWN_PARSER)

WITH_TORCH = {*COMMANDS} - {"config", "report", "table", "watch"}
"""Commands that import torch into their own process, at least for some arguments."""

OTHER_RANKS_WAIT_SECONDS = 3.0
"""On wrong input every rank fails. All but rank 0 wait this long before they exit: a launcher stops the remaining ranks
as soon as one has exited, and rank 0 must print its message first."""

OVERRIDES = "Every key of the run file can be overridden with --section.key VALUE, for example --train.seed 7."


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands. Each command sets `command`, a function of the options and the overrides."""
    parser = argparse.ArgumentParser(
        prog="ftsys",
        allow_abbrev=False,
        description="Fine-tune pre-trained text encoders on one CPU, one GPU or many, with the same result on each.",
        epilog="Exit status: " + "; ".join(f"{status} {meaning}" for status, meaning in EXIT_STATUSES.items()) + ".",
    )
    parser.add_argument("--version", action="version", version=f"ftsys {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, help_text, command in (
        ("prepare", "tokenize the data into a store; needs no GPU", _prepare),
        ("bundle", "put model, tokenizer and store into one folder, for runs without a network", _bundle),
        ("train", "train and evaluate, as a single process or as a rank under any launcher", _train),
        ("evaluate", "print the metrics of the model in a run folder", _evaluate),
        ("predict", "write the predictions of a model, for files or for every split of a run", _predict),
        ("config", "print the resolved run file, with the origin of each value", _config),
    ):
        sub = commands.add_parser(
            name, help=help_text, description=_sentence(help_text), epilog=OVERRIDES, allow_abbrev=False
        )
        sub.add_argument("run_file", metavar="RUN.toml", help="the run file")
        sub.set_defaults(command=command)
        if name == "train":
            sub.add_argument(
                "--overwrite",
                action="store_true",
                help="remove the former run from the run folder and start from the beginning",
            )
            sub.add_argument("--no-table", action="store_true", help="do not print the table of metrics at the end")
        if name == "predict":
            text = "the folder to write predictions/ and submission/ to (default: the run folder)"
            sub.add_argument("--output", type=Path, metavar="FOLDER", help=text)
            sub.description = "Predict every split of a run file with the model in its run folder."
        if name == "bundle":
            sub.add_argument("--output", required=True, metavar="FOLDER", help="the folder to write the bundle to")
    help_text = "check the bytes of a store, a bundle or checkpoints, or the format of a submission for the GLUE server"
    verify = commands.add_parser("verify", help=help_text, description=_sentence(help_text), allow_abbrev=False)
    verify.add_argument("path", metavar="PATH", help="a store, a bundle, a checkpoint, a run folder, or a zip")
    verify.set_defaults(command=_verify)
    for name, (_, help_text) in WITH_OWN_PARSER.items():
        sub = commands.add_parser(name, help=help_text, add_help=False)
        sub.set_defaults(command=_own_main(name))
    return parser


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def run() -> int:
    """Run `main` as the whole process, in which a rank may skip imports (see `ftsys.fast_import`)."""
    return run_program(partial(main, own_process=True))


def main(arguments: Sequence[str] | None = None, own_process: bool = False) -> int:
    """Run one command; returns its exit status. Wrong input gives one message and no traceback."""
    arguments = _without_local_rank(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(arguments, own_process)
    except FtsysError as error:
        if may_complain():
            complain(error)
        _tell_job(error.exit_status)
        if not is_main_rank() and error.exit_status in (BAD_INPUT, FAILED):
            _leave_after_rank_0(error)
        return error.exit_status


def _leave_after_rank_0(error: FtsysError) -> None:
    """Wait until rank 0 has printed the same error, and print an error that only this rank has.

    A launcher has stopped this rank by then if rank 0 has failed as well.
    """
    own = has_launcher(os.environ) and not (error.told or may_complain())
    if own or error.exit_status == BAD_INPUT:
        time.sleep(OTHER_RANKS_WAIT_SECONDS)
    if own:
        complain(f"rank {os.environ['RANK']}: {error}")


def _tell_job(status: int) -> None:
    """Write the exit status of a refusal where slurm/job.sh reads it: torchrun turns every status into 1."""
    path = os.environ.get("FTSYS_EXIT_FILE")
    if path and status in (BAD_INPUT, NOT_OURS):
        try:
            atomic_write_text(path, f"{status}\n")
        except StorageError as error:
            say(f"{error} The job ends with 1 instead of {status}")


def _dispatch(arguments: Sequence[str], own_process: bool) -> int:
    from ftsys.config import split_overrides

    if own_process and arguments and arguments[0] in WITH_TORCH:
        settle_inductor()
    if _scores_files(arguments):
        _join_tasks(own_process)
        return int(import_module("ftsys.score.command").main(arguments[1:]))
    own_parser = bool(arguments) and arguments[0] in WITH_OWN_PARSER
    arguments, overrides = (arguments, []) if own_parser else split_overrides(arguments)
    check_command("ftsys", arguments, COMMANDS)
    options, others = build_parser().parse_known_args(arguments)
    if own_process and options.command in RANK_COMMANDS:
        begin_fast_import()
    if options.command in RANK_COMMANDS or arguments[0] == "run-glue":
        _join_tasks(own_process)
    return int(options.command(options, others + overrides))


def _scores_files(arguments: Sequence[str]) -> bool:
    """Return True for `ftsys predict` with a model and files; False where a run file is its first argument."""
    if not arguments or arguments[0] != "predict":
        return False
    words = arguments[1:]
    return not any(word.endswith(".toml") for word in words) and not (words and Path(words[0]).is_file())


def _join_tasks(own_process: bool) -> None:
    """Make this process a rank where srun or mpirun started several, and set OpenMP's threads; rank 0 tells of both."""
    from ftsys.cpus.openmp import settle_openmp
    from ftsys.cpus.usable import usable_cores
    from ftsys.train.scheduler_world import join_tasks

    lines = [join_tasks(os.environ)]
    if own_process:  # a caller of `main` keeps its environment, and has imported torch perhaps
        lines.append(settle_openmp(os.environ, usable_cores()))
    for line in filter(None, lines):
        if is_main_rank():
            say(line)


def _without_local_rank(arguments: Sequence[str]) -> list[str]:
    """Remove --local_rank=N, which `deepspeed --module ftsys` writes; LOCAL_RANK has the same value."""
    return [argument for argument in arguments if not argument.startswith(("--local_rank=", "--local-rank="))]


def _run(options: argparse.Namespace, overrides: list[str]) -> "RunConfig":
    from ftsys.config import load_run

    return load_run(options.run_file, overrides)


def _prepare(options: argparse.Namespace, overrides: list[str]) -> int:
    from ftsys.config import resolve_task
    from ftsys.data.prepare import ensure_store
    from ftsys.report.progress import SplitProgress

    run = _run(options, overrides)
    with SplitProgress("prepare") as progress:
        store = ensure_store(run, resolve_task(run), progress)
    for name, split in store.splits.items():
        show(f"{name}: {len(split):,} rows, {split.total_tokens:,} tokens")
    show(str(store.path))
    return DONE


def _bundle(options: argparse.Namespace, overrides: list[str]) -> int:
    from ftsys.config import resolve_task
    from ftsys.data.bundle import HF_FOLDER, RUN_NAME
    from ftsys.offline.make_bundle import make_bundle
    from ftsys.report.progress import SplitProgress
    from launcher.planner.deepspeed_config import user_json_of

    run = _run(options, overrides)
    user_json_of(run)  # refuses a file that no run could use, or with a secret in it
    with SplitProgress("prepare") as progress:
        bundle, made = make_bundle(run, resolve_task(run), Path(options.output), progress)
    size = sum(entry["bytes"] for entry in bundle.files.values())
    done = "made" if made else "was there already, every byte verified"
    show(f"{bundle.path}: {done}; {len(bundle.files)} files, {size / 1e6:.1f} MB")
    if run.train.resume not in ("auto", "never"):
        show(f"note: the checkpoint train.resume={run.train.resume!r} is not in it: copy it yourself")
    run_file, home = (shlex.quote(str(path)) for path in (bundle.path / RUN_NAME, (bundle.path / HF_FOLDER).absolute()))
    show(f"to train without a network: ftsys train {run_file}")
    if (bundle.path / HF_FOLDER).is_dir():
        show(f"for your own scripts without a network, set: HF_HOME={home} HF_HUB_OFFLINE=1")
    return DONE


def _train(options: argparse.Namespace, overrides: list[str]) -> int:
    from ftsys.train.run import train

    return train(_run(options, overrides), options.overwrite, table=not options.no_table)


def _evaluate(options: argparse.Namespace, overrides: list[str]) -> int:
    from ftsys.train.predict import evaluate

    return evaluate(_run(options, overrides))


def _predict(options: argparse.Namespace, overrides: list[str]) -> int:
    from ftsys.train.predict import predict

    return predict(_run(options, overrides), options.output)


RANK_COMMANDS = (_train, _evaluate, _predict)


def _config(options: argparse.Namespace, overrides: list[str]) -> int:
    from ftsys.config import resolved_tree

    rows = [(key, repr(value), origin) for key, value, origin in resolved_tree(options.run_file, overrides)]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for key, value, origin in rows:
        show(f"{key:<{widths[0]}}  {value:<{widths[1]}}  {origin}")
    return DONE


def _verify(options: argparse.Namespace, others: list[str]) -> int:
    from ftsys.train.verify import verify

    ConfigError.raise_if(f"{other!r} is not an argument of `ftsys verify`: it takes one path." for other in others)
    return verify(options.path)


def _own_main(name: str) -> Callable[[argparse.Namespace, list[str]], int]:
    """Return a command that passes all arguments after its name to its module's `main`."""

    def command(options: argparse.Namespace, others: list[str]) -> int:
        return int(import_module(WITH_OWN_PARSER[name][0]).main(others))

    return command
