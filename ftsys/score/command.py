"""Implements `ftsys predict MODEL FILE... --output OUT`."""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ftsys.console.printer import show
from ftsys.data.sources.dialect import AUTO, QUOTED, UNQUOTED
from ftsys.errors import DONE, ConfigError
from ftsys.files.paths import check_output, expanded, there
from ftsys.model_files.remote_code import TRUST_HELP
from ftsys.ranks import is_main_rank
from ftsys.score.ranks import agreed, together
from ftsys.score.readers.inputs import FORMATS, InputFile, input_file

if TYPE_CHECKING:
    from ftsys.score.model import FoundModel
    from ftsys.score.outcomes import Head
    from ftsys.score.run import Request

MORE = (
    "`ftsys predict RUN.toml [--output FOLDER]` predicts the run file's own splits instead: `ftsys predict RUN.toml "
    "--help` describes it. Several ranks share the work under torchrun, srun or mpirun, with the same output."
)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    parser = argparse.ArgumentParser(
        prog="ftsys predict",
        allow_abbrev=False,
        description="Score the rows of files with a trained classifier: labels and scores, in the files' order.",
        epilog=MORE,
    )
    text = "CSV, TSV, JSONL, Parquet, a folder that `datasets` wrote, or - for standard input"
    parser.add_argument(
        "model", metavar="MODEL", help="a run folder, a folder that save_pretrained wrote, or a model of the Hub"
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help=text)
    _add_columns(parser.add_argument)
    _add_reading(parser.add_argument)
    return parser


def _add_columns(add: Callable[..., object]) -> None:
    """Add the flags of the output and its columns."""
    add("--output", type=Path, required=True, metavar="OUT", help="the file to write: .csv, .jsonl or .parquet")
    add("--text", nargs="+", metavar="COLUMN", help="the column of the texts, or the two columns of pairs")
    add("--columns", nargs="+", default=[], metavar="COLUMN", help="columns to copy into the output")
    add("--prefix", default="", help="text before the names of the new columns, label and score")
    add("--top-k", type=int, metavar="K", help="write the K best classes of a row instead of a score for each class")
    text = "the score from which on a label is given: of two classes the second one, of several labels each; of more "
    text += "classes the best one, else none"
    add("--threshold", type=float, metavar="T", help=text)
    add("--overwrite", action="store_true", help="replace an output that exists, or begin one anew")


def _add_reading(add: Callable[..., object]) -> None:
    """Add the flags of the input and of the computation."""
    text = "what a broken row does: end the command (fail, the default), or be left out and listed in OUT.skipped.jsonl"
    add("--on-error", choices=("fail", "skip"), default="fail", help=text)
    add("--format", choices=sorted({*FORMATS.values()}), help="the format of the files, whatever their names end in")
    add("--split", help="the split of a folder with several")
    text = "quotation marks of tables: auto (default), csv (they enclose fields) or none (they belong to the text)"
    add("--quoting", choices=(AUTO, QUOTED, UNQUOTED), default=AUTO, help=text)
    add(
        "--max-length", type=int, metavar="N", help="tokens to which a row is cut (default: as in the model's training)"
    )
    add("--precision", default="auto", choices=("auto", "fp32", "bf16"), help="auto: bf16 where the processor has it")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--trust-remote-code", action="store_true", help=TRUST_HELP)
    add("--batch-tokens", type=int, metavar="N", help="tokens that are computed at once (default: by the device)")


def main(words: Sequence[str]) -> int:
    """Score the files that the command line names.

    Raises ConfigError, DataError and StorageError on all ranks together, and what `together` raises.
    """
    options = build_parser().parse_args(list(words))
    with together():
        return _run(options, agreed(partial(_checked, options)))


def _check(options: argparse.Namespace) -> None:
    """Raise ConfigError with everything that is wrong by itself."""
    mistakes = []
    if options.text and len(options.text) > 2:
        mistakes.append(f"--text names {len(options.text)} columns: name one, or two for pairs.")
    for name in ("max_length", "batch_tokens"):
        value = getattr(options, name)
        if value is not None and value < 1:
            mistakes.append(f"--{name.replace('_', '-')} {value} is not a number of tokens: write 1 or more.")
    if options.files.count("-") > 1:
        mistakes.append("standard input (-) can be read once: name it once.")
    folders = [path for path in map(expanded, options.files) if there(path) and path.is_dir()]
    if options.split and not folders:
        mistakes.append(f"--split {options.split}: only a folder of `datasets` has splits: leave it out.")
    if options.format and len(folders) == len(options.files):
        mistakes.append(f"--format {options.format}: a folder is read as `datasets` wrote it: leave it out.")
    ConfigError.raise_if(mistakes)


def _check_quoting(options: argparse.Namespace, files: Sequence[InputFile]) -> None:
    """Raise ConfigError where --quoting would have no effect."""
    if options.quoting != AUTO and not any(file.format in ("csv", "tsv") for file in files):
        raise ConfigError(f"--quoting {options.quoting}: no input is a table (csv, tsv): leave it out.")


def _check_place(output: Path, files: Sequence[InputFile]) -> None:
    """Raise ConfigError for an output that would replace an input, or change a folder that is one."""
    place = output.resolve()
    for file in (file for file in files if not file.is_stream):
        source = file.path.resolve()
        if place == source or source in place.parents:
            where = "is" if place == source else "lies in"
            raise ConfigError(f"--output {str(output)!r} {where} the input {file.name!r}: write it to another place.")


def _checked(options: argparse.Namespace) -> "Request":
    """Look at all that this rank needs, before anything is computed. Raises ConfigError and DataError."""
    _check(options)
    files = [input_file(name, options.format, options.split, options.quoting) for name in options.files]
    _check_quoting(options, files)
    from ftsys.report.log_filters import quiet_libraries

    quiet_libraries()
    return _request(options, files)


def _request(options: argparse.Namespace, files: Sequence[InputFile]) -> "Request":
    from ftsys.score.columns import Written
    from ftsys.score.formats import format_of
    from ftsys.score.model import find_model
    from ftsys.score.run import Request, check_ranks, open_inputs

    check_ranks(files)
    format_of(options.output, {})
    check_output("--output", options.output)
    _check_place(options.output, files)
    found = find_model(options.model, options.max_length, options.trust_remote_code)
    written = Written(_head(options, found), tuple(options.columns), options.top_k, options.prefix)
    written.check()
    wanted, types, stream = open_inputs(files, options.text, found.columns, options.columns)
    return Request(
        found, files, options.output, wanted, written, types,
        options.on_error, options.overwrite, options.batch_tokens, stream,
    )  # fmt: skip


def _head(options: argparse.Namespace, found: "FoundModel") -> "Head":
    from ftsys.score.outcomes import head_of_model

    head = head_of_model(found.name, found.folder, found.config)
    return head if options.threshold is None else head.with_threshold(options.threshold)


def _run(options: argparse.Namespace, request: "Request") -> int:
    from ftsys.report.notes import show_notes
    from ftsys.score.engine import Engine
    from ftsys.score.parts import skipped_file
    from ftsys.score.run import chosen_precision, score_files

    precision = chosen_precision(options.precision, request.output)
    engine = Engine(request.found, options.device, precision, agreed)
    show_notes(*engine.notes(), *filter(None, [request.written.head.note]))
    skipped = score_files(request, engine)
    if is_main_rank():
        show(f"{options.output}: complete already" if skipped is None else f"{options.output}: written")
        if skipped:
            show(f"{skipped_file(options.output)}: {skipped:,} rows were skipped")
    return DONE
