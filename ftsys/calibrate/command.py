"""Implements `ftsys calibrate`: writes a temperature and thresholds beside a trained model, and prints what they do."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from ftsys.calibrate.fit import Figures, Fitted, fit
from ftsys.calibrate.rows import Rows
from ftsys.calibrate.source import calibration_rows
from ftsys.calibrate.temperature import BINS, LEAST, MOST
from ftsys.calibrate.thresholds import METRICS
from ftsys.console.printer import say, show
from ftsys.errors import DONE, ConfigError
from ftsys.files.atomic import atomic_write_json
from ftsys.finished.run import FinishedRun, open_finished
from ftsys.model_files.calibration import write_calibration
from ftsys.model_files.remote_code import TRUST_HELP
from ftsys.run_folder.layout import CALIBRATION_RESULTS

DESCRIPTION = (
    "Fit a temperature to the scores of a finished run's model and, with --metric, thresholds of its labels. Writes "
    "model/calibration.json, which `ftsys predict MODEL FILE` and `Classifier` use, and prints figures of rows that "
    "each fit had not seen."
)


def main(arguments: Sequence[str]) -> int:
    """Calibrate the model of a run folder; returns the exit status. Raises ConfigError, DataError and StorageError."""
    options = _parser().parse_args(arguments)
    ConfigError.raise_if(_mistakes(options))
    finished = open_finished(options.run, options.trust_remote_code)
    split = finished.labelled_split(options.split)
    rows, from_file = calibration_rows(finished, split)
    if from_file:
        say(f"rows and scores of the run's own predictions of {split}")
    fitted = fit(rows, options.metric, options.folds, options.seed)
    path = write_calibration(finished.model, fitted.calibration)
    how = {"split": split, "rows": len(rows), "folds": options.folds, "seed": options.seed, "bins": BINS}
    atomic_write_json(finished.folder / CALIBRATION_RESULTS, how | _content(fitted))
    _print(finished, split, rows, options.folds, fitted, path)
    return DONE


def _mistakes(options: argparse.Namespace) -> Iterator[str]:
    if options.folds < 2:
        yield f"--folds {options.folds}: two folds or more are needed."
    if options.seed < 0:
        yield f"--seed {options.seed}: a seed is 0 or more."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ftsys calibrate", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="the folder of a finished run of a classification")
    parser.add_argument(
        "--split", metavar="NAME", help="the labelled split to fit to; default: the first evaluated one"
    )
    parser.add_argument(
        "--metric",
        choices=tuple(METRICS),
        help="choose thresholds for this metric: of class 1 of two, or of each of several labels (their mean)",
    )
    parser.add_argument("--folds", type=int, default=5, metavar="K", help="folds of the cross-validation; default: 5")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the folds; default: 0")
    parser.add_argument("--trust-remote-code", action="store_true", help=TRUST_HELP)
    return parser


def _content(fitted: Fitted) -> dict[str, object]:
    return {
        "before": asdict(fitted.before),
        "after_out_of_fold": asdict(fitted.after),
        **asdict(fitted.calibration),
        "labels_without_threshold": fitted.left_out,
    }


def _print(finished: FinishedRun, split: str, rows: Rows, folds: int, fitted: Fitted, path: Path) -> None:
    metric = fitted.calibration.metric
    show(f"{finished.task.name}, {split}: {len(rows)} rows, {folds} folds")
    show(_line("", "log loss", "ECE", metric))
    show(_line("before", *_cells(fitted.before)))
    show(_line("after, out of fold", *_cells(fitted.after)))
    for note in (*_notes(fitted), f"calibration  {path}"):
        show(note)


def _cells(figures: Figures) -> list[str | None]:
    values = (figures.log_loss, figures.expected_calibration_error, figures.metric)
    return [None if value is None else f"{value:.4f}" for value in values]


def _line(label: str, *cells: str | None) -> str:
    return f"{label:<18}" + "".join(f"  {cell:>8}" for cell in cells if cell is not None)


def _notes(fitted: Fitted) -> list[str]:
    calibration, (before, after) = fitted.calibration, (fitted.before.metric, fitted.after.metric)
    notes = [f"temperature {calibration.temperature:.4g}"]
    if calibration.temperature in (LEAST, MOST):
        notes.append(f"note: the temperature is at its bound ({LEAST} to {MOST}): the log loss has no minimum within.")
    notes += [f"threshold of {name!r}: {value:.4g}" for name, value in (calibration.thresholds or {}).items()]
    if fitted.left_out:
        notes.append(f"note: too few rows for a threshold of {', '.join(fitted.left_out)}: 0.5 stays.")
    if before is not None and after is not None and after <= before:
        notes.append("note: on rows that were held out, the thresholds do not help. Without --metric there are none.")
    return notes
