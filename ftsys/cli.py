"""The `ftsys` command: reads words, calls one function, turns errors into an exit status."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from ftsys.config import RunConfig, load_run, resolve_task, resolved_tree, split_overrides
from ftsys.errors import BAD_INPUT, DONE, EXIT_STATUSES, ConfigError, FtsysError
from ftsys.fast_import.hooks import install_import_hooks

OWN_FLAGS = {
    "report": ("ftsys.report.command", "finished runs side by side, with the mean over seeds"),
    "bench": ("ftsys.bench.command", "a throughput benchmark, with its peers in the same run"),
    "demo": ("ftsys.demo.command", "`make demo`"),
    "run-glue": (
        "ftsys.run_glue.command",
        "the well-known example script's flags; prints the run file they are equal to",
    ),
    "offline-assets": ("ftsys.offline.command", "GLUE, its metric and a model into Hugging Face's caches, once"),
}
"""Commands that read their words themselves: the module and what it does."""

SPEAKER_FIRST_SECONDS = 3.0
"""Other ranks wait so long with wrong input, which all find: once one has left, a launcher ends rank 0 unheard."""

OVERRIDES = "Any key of the run file can be overridden: --section.key VALUE, for instance --train.seed 7."


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets `command`, a function of the options and the overrides."""
    parser = argparse.ArgumentParser(
        prog="ftsys",
        allow_abbrev=False,
        description="Fine-tune pre-trained text encoders, on one CPU or many GPUs, with the same answer on all.",
        epilog="Exit status: " + "; ".join(f"{status} {meaning}" for status, meaning in EXIT_STATUSES.items()) + ".",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, help_text, command in (
        ("prepare", "tokenize once into a store; needs no GPU", _prepare),
        ("bundle", "model, tokenizer and store in one folder, for runs without a network", _bundle),
        ("train", "train and evaluate; alone or as a rank of any launcher", _train),
        ("evaluate", "metrics of a trained run folder's model", _evaluate),
        ("predict", "predictions of a trained run folder's model for every split", _predict),
        ("config", "the resolved run file, with where each value came from", _config),
    ):
        description = f"{help_text[0].upper()}{help_text[1:]}."
        sub = commands.add_parser(name, help=help_text, description=description, epilog=OVERRIDES, allow_abbrev=False)
        sub.add_argument("run_file", metavar="RUN.toml", help="the run file")
        sub.set_defaults(command=command)
        if name == "train":
            sub.add_argument("--overwrite", action="store_true", help="start anew in a run folder that was used before")
            sub.add_argument("--no-table", action="store_true", help="leave the table to whoever started this")
        if name == "bundle":
            sub.add_argument("--output", required=True, metavar="FOLDER", help="where the bundle is to lie")
    help_text = "check the bytes of a store, a bundle, a checkpoint or a run folder's checkpoints"
    verify = commands.add_parser("verify", help=help_text, description=f"C{help_text[1:]}.", allow_abbrev=False)
    verify.add_argument("path", metavar="PATH", help="a store, a bundle, a checkpoint or a run folder")
    verify.set_defaults(command=_verify)
    for name, (_, help_text) in OWN_FLAGS.items():
        sub = commands.add_parser(name, help=help_text, add_help=False)
        sub.set_defaults(command=_hand_on(name))
    return parser


def run() -> int:
    """`main` in a process of its own, where a rank may leave out imports."""
    return main(own_process=True)


def main(words: Sequence[str] | None = None, own_process: bool = False) -> int:
    """Run one command; returns its exit status. Wrong input is said in one message, without a traceback."""
    words = list(sys.argv[1:] if words is None else words)
    words = _without_local_rank(words)
    with_own_flags = bool(words) and words[0] in OWN_FLAGS
    words, overrides = (words, []) if with_own_flags else split_overrides(words)
    options, others = build_parser().parse_known_args(words)
    others += overrides
    if own_process and options.command in OF_A_RANK:
        install_import_hooks()
    try:
        return int(options.command(options, others))
    except FtsysError as error:
        speaks = os.environ.get("RANK", "0") == "0"
        if speaks or "FTSYS_OWN_LOG" in os.environ:  # `ftlaunch` gives each rank a log
            print(f"error: {error}", file=sys.stderr, flush=True)
        if not speaks and error.exit_status == BAD_INPUT:
            time.sleep(SPEAKER_FIRST_SECONDS)
        return error.exit_status


def _without_local_rank(words: list[str]) -> list[str]:
    """`deepspeed --module ftsys` writes --local_rank=N before the command; it says what LOCAL_RANK says already."""
    return [word for word in words if not word.startswith(("--local_rank=", "--local-rank="))]


def _run(options: argparse.Namespace, overrides: list[str]) -> RunConfig:
    return load_run(options.run_file, overrides)


def _prepare(options: argparse.Namespace, overrides: list[str]) -> int:
    from ftsys.data.prepare import ensure_store
    from ftsys.report.progress import SplitProgress

    run = _run(options, overrides)
    with SplitProgress("prepare") as progress:
        store = ensure_store(run, resolve_task(run), progress)
    for name, split in store.splits.items():
        print(f"{name}: {len(split):,} rows, {split.total_tokens:,} tokens")
    print(store.path)
    return DONE


def _bundle(options: argparse.Namespace, overrides: list[str]) -> int:
    from ftsys.offline.make_bundle import make_bundle
    from ftsys.report.progress import SplitProgress

    run = _run(options, overrides)
    with SplitProgress("prepare") as progress:
        bundle, made = make_bundle(run, resolve_task(run), Path(options.output), progress)
    size = sum(entry["bytes"] for entry in bundle.files.values())
    what = "made" if made else "was there already, every byte verified"
    print(f"{bundle.path}: {what}; {len(bundle.files)} files, {size / 1e6:.1f} MB")
    if run.train.resume not in ("auto", "never"):
        print(f"note: the checkpoint train.resume={run.train.resume!r} is not in it: copy it yourself")
    print(f"without a network: ftsys train {bundle.path / 'run.toml'}")
    if (bundle.path / "hf").is_dir():
        print(
            f"and scripts of your own, as after `ftsys offline-assets`: HF_HOME={bundle.path / 'hf'} HF_HUB_OFFLINE=1"
        )
    return DONE


def _train(options: argparse.Namespace, overrides: list[str]) -> int:
    from ftsys.train.run import train

    return train(_run(options, overrides), options.overwrite, table=not options.no_table)


def _evaluate(options: argparse.Namespace, overrides: list[str]) -> int:
    from ftsys.train.predict import evaluate

    return evaluate(_run(options, overrides))


def _predict(options: argparse.Namespace, overrides: list[str]) -> int:
    from ftsys.train.predict import predict

    return predict(_run(options, overrides))


OF_A_RANK = (_train, _evaluate, _predict)


def _config(options: argparse.Namespace, overrides: list[str]) -> int:
    rows = [(key, repr(value), origin) for key, value, origin in resolved_tree(options.run_file, overrides)]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for key, value, origin in rows:
        print(f"{key:<{widths[0]}}  {value:<{widths[1]}}  {origin}")
    return DONE


def _verify(options: argparse.Namespace, others: list[str]) -> int:
    from ftsys.train.verify import verify

    ConfigError.raise_if(f"{word!r} is not an argument of `ftsys verify`: it takes one path." for word in others)

    return verify(options.path)


def _hand_on(name: str) -> Callable[[argparse.Namespace, list[str]], int]:
    """A command with flags of its own: its module's `main` takes all words behind the name."""

    def command(options: argparse.Namespace, others: list[str]) -> int:
        return int(import_module(OWN_FLAGS[name][0]).main(others))

    return command
