"""Implements `ftsys export`: writes a run's model for another runtime, if it answers as the stock model does."""

import argparse
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from ftsys.console.printer import show
from ftsys.errors import DONE, ConfigError
from ftsys.export.parity import Parity, check_drift, compare
from ftsys.export.targets import TARGETS, check_installed
from ftsys.files.atomic import atomic_write_json
from ftsys.files.folders import remove_tree, sync_folder, sync_tree
from ftsys.files.storage_errors import storage_errors
from ftsys.finished.run import FinishedRun, open_finished
from ftsys.model_files.remote_code import TRUST_HELP
from ftsys.run_folder.layout import EXPORT

PARITY = "parity.json"
"""The figures of the comparison, in the exported folder. It marks a folder that this command has written."""
DESCRIPTION = (
    "Write the model of a finished run for ONNX Runtime or OpenVINO, with its tokenizer and configuration. Rows of a "
    "labelled split go through both models first; an export whose answers differ is refused."
)


def main(arguments: Sequence[str]) -> int:
    """Export the model of a run folder; returns the exit status. Raises ConfigError, DataError and StorageError."""
    options = _parser().parse_args(arguments)
    if options.rows < 2:
        raise ConfigError(f"--rows {options.rows}: two rows or more are needed.")
    check_installed(options.to)
    finished = open_finished(options.run, options.trust_remote_code)
    _check_whole(finished)
    split = finished.labelled_split(options.split)
    output = options.output or finished.folder / EXPORT / options.to
    _check_output(output, options.overwrite)
    tolerance = TARGETS[options.to].tolerance if options.tolerance is None else options.tolerance
    with _made_beside(output) as folder:
        parity = _export(finished, options.to, split, options.rows, folder)
        _print(finished, options.to, split, parity, folder)
        check_drift(options.to, parity, tolerance, finished.task.metrics[0])
        atomic_write_json(
            folder / PARITY, {"target": options.to, "split": split, "tolerance": tolerance} | asdict(parity)
        )
    show(f"exported  {output}")
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ftsys export", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="the folder of a finished run")
    text = "onnx and openvino compute in float32; int8 is ONNX with int8 weights, for ONNX Runtime on a CPU"
    parser.add_argument("--to", required=True, choices=tuple(TARGETS), help=text)
    text = "the folder to write to; default: RUN_DIR/export/TARGET"
    parser.add_argument("--output", type=Path, metavar="FOLDER", help=text)
    parser.add_argument("--overwrite", action="store_true", help="replace a former export in that folder")
    parser.add_argument(
        "--split", metavar="NAME", help="the labelled split to compare on; default: the first evaluated"
    )
    parser.add_argument(
        "--rows", type=int, default=1000, metavar="N", help="compare on the first N rows; default: 1000"
    )
    defaults = ", ".join(f"{target.tolerance:g} for {name}" for name, target in TARGETS.items())
    text = f"largest accepted difference of logits, relative to the largest logit; default: {defaults}"
    parser.add_argument("--tolerance", type=float, metavar="X", help=text)
    parser.add_argument("--trust-remote-code", action="store_true", help=TRUST_HELP)
    return parser


def _check_whole(finished: FinishedRun) -> None:
    """Raise ConfigError for a run whose model is an adapter alone."""
    if not (finished.model / "config.json").is_file():
        raise ConfigError(
            f"{str(finished.model)!r} is an adapter without its model (lora.merge = false), which cannot be exported: "
            "train with --lora.merge true and another --output_dir, or merge it with peft."
        )


def _check_output(output: Path, overwrite: bool) -> None:
    """Raise ConfigError unless `output` is free, or may be replaced because a former export is there."""
    if output.name in ("", ".."):
        raise ConfigError(f"--output {str(output)!r} cannot be replaced as a whole: name a folder.")
    if not output.exists() and not output.is_symlink():
        return
    if not overwrite:
        raise ConfigError(f"{str(output)!r} is there already: replace it with --overwrite, or name another --output.")
    if not (output / PARITY).is_file():
        raise ConfigError(f"{str(output)!r} is no export of this command ({PARITY} is missing): it is not removed.")


@contextmanager
def _made_beside(output: Path) -> Iterator[Path]:
    """Yield an empty folder beside `output` that takes its place when the block ends; an exception leaves nothing."""
    new_parent = not output.parent.exists()
    with storage_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".tmp", dir=output.parent))
    try:
        yield folder
        with storage_errors(output):
            folder.chmod(0o755)
            sync_tree(folder)
            _replace_folder(output, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if new_parent:
            with suppress(OSError):  # it is not empty after a success
                output.parent.rmdir()


def _replace_folder(output: Path, new: Path) -> None:
    """Give a folder the name `output`. What had the name is removed only when the new one is there for good."""
    former = new.with_name(f"{new.name}.former")
    if output.exists():
        output.rename(former)
    try:
        new.rename(output)
    except BaseException:  # Ctrl-C as well
        if former.exists():
            former.rename(output)
        raise
    sync_folder(output.parent)
    remove_tree(former)


def _export(finished: FinishedRun, target: str, split: str, most: int, folder: Path) -> Parity:
    from ftsys.export.convert import convert, copy_companions, load_stock, stock_run
    from ftsys.export.rows import split_rows
    from ftsys.report.log_filters import quiet_libraries

    quiet_libraries()
    rows = split_rows(finished, split, most)
    trusted = finished.run.model.trust_remote_code
    model = load_stock(finished.model, trusted)
    with storage_errors(folder):
        convert(target, model, rows.two(), folder)
        copy_companions(finished.model, folder, trusted)
    return compare(finished.task, rows, stock_run(model), TARGETS[target].open(folder))


def _print(finished: FinishedRun, target: str, split: str, parity: Parity, folder: Path) -> None:
    show(f"{finished.task.name}, {split}: {parity.rows} rows through the model and its export to {target}")
    show(_line("", "before", "after"))
    for name, value in parity.before.items():
        show(_line(name, f"{value:.4f}", f"{parity.after[name]:.4f}"))
    show(_line("size, MB", *(f"{_model_bytes(place) / 1e6:.1f}" for place in (finished.model, folder))))
    changed = "" if parity.changed is None else f"; {parity.changed} of {parity.rows} rows are predicted otherwise"
    show(f"largest difference of logits {parity.largest:.3g}, {parity.drift:.2g} of the largest logit{changed}")


def _line(label: str, *cells: str) -> str:
    return f"{label:<22}" + "".join(f"  {cell:>8}" for cell in cells)


def _model_bytes(folder: Path) -> int:
    """Return the bytes of weights and graph in a folder."""
    kinds = (".safetensors", ".onnx", ".data", ".xml", ".bin")
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix in kinds)
