"""Shows and writes what a sweep found: a table of its trials, and the run file of the best one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ftsys.config import load_run, plain_tree
from ftsys.config.toml import dump_tree
from ftsys.files.atomic import atomic_write_text
from ftsys.report.table import GAP, Line, print_lines
from ftsys.sweep.space import overrides_of
from ftsys.sweep.study import SharedStudy

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

BEST = "best.toml"


def best_first(shared: SharedStudy) -> "list[FrozenTrial]":
    """Return all trials: the finished ones with the best value first, then the others by number."""
    sign = -1 if shared.sweep.maximize else 1
    done = [trial for trial in shared.trials() if trial.state.name == "COMPLETE"]
    rest = [trial for trial in shared.trials() if trial.state.name != "COMPLETE"]
    return sorted(done, key=lambda trial: sign * (trial.value or 0.0)) + rest


def best_of(shared: SharedStudy) -> "FrozenTrial | None":
    """Return the finished trial with the best value; None if no trial has finished."""
    return next((trial for trial in best_first(shared) if trial.state.name == "COMPLETE"), None)


def write_best(shared: SharedStudy) -> None:
    """Write SWEEP_DIR/best.toml: the whole run file with the values of the best trial, for a run of its own."""
    best, sweep = best_of(shared), shared.sweep
    if best is None:
        return
    words = [*sweep.overrides, *overrides_of(best.params), "--output_dir", str(sweep.folder / "best")]
    tree = plain_tree(load_run(sweep.run_file, words).model_copy(update={"recipe": None}))  # its values are in it
    tree.pop("sweep", None)
    score = f"{sweep.split} {sweep.objective} {best.value:.6g}"
    head = f"# The best of {len(shared.trials())} trials: trial {best.number}, {score}."
    atomic_write_text(sweep.folder / BEST, f"{head}\n{dump_tree(tree)}")


def show_trials(shared: SharedStudy) -> None:
    """Print a row for each trial, and where the files are."""
    sweep, trials, best = shared.sweep, best_first(shared), best_of(shared)
    keys = list(sweep.space)
    header = ["trial", "state", f"{sweep.split} {sweep.objective}", "evaluations", *map(_short(keys), keys)]
    rows = [_row(trial, keys) for trial in trials]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [Line(_aligned(header, widths), "header"), Line("-" * (sum(widths) + GAP * (len(widths) - 1)), "rule")]
    for trial, row in zip(trials, rows, strict=True):
        lines.append(Line(_aligned(row, widths), "best" if trial is best else "row"))
    reasons = [f"trial {trial.number} failed: {trial.user_attrs['reason']}" for trial in trials if trial.user_attrs]
    places = (
        []
        if best is None
        else [f"best run file  {sweep.folder / BEST}", f"its run        {sweep.folder}/trial-{best.number}"]
    )
    print_lines([*lines, *(Line(text, "note") for text in [*reasons, *places])])


def _short(keys: Sequence[str]) -> Any:
    """Return the function that shortens a key to its last part, where no other key has the same."""
    last = [key.rpartition(".")[2] for key in keys]
    return lambda key: key if last.count(key.rpartition(".")[2]) > 1 else key.rpartition(".")[2]


def _row(trial: "FrozenTrial", keys: Sequence[str]) -> list[str]:
    value = trial.value if trial.state.name == "COMPLETE" else None
    if value is None and trial.intermediate_values:
        value = trial.intermediate_values[max(trial.intermediate_values)]
    shown = "" if value is None else f"{value:.4f}"
    values = [_cell(trial.params.get(key, "")) for key in keys]
    return [str(trial.number), trial.state.name.lower(), shown, str(len(trial.intermediate_values)), *values]


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return (" " * GAP).join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
