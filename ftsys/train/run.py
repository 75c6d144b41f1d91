"""Implements `ftsys train`: one rank of one attempt, from the run file to results.json and its exit status on disk."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from ftsys.config import RunConfig, identity_parts, resolve_task
from ftsys.console.printer import say
from ftsys.data.prepare import ensure_store
from ftsys.data.store.reader import Store
from ftsys.errors import DONE, StoppedEarly
from ftsys.metrics import check_metric_names
from ftsys.ranks import is_main_rank
from ftsys.report.log_filters import quiet_libraries
from ftsys.report.notes import show_notes
from ftsys.report.progress import SplitProgress
from ftsys.report.runs import rows_of_run
from ftsys.report.table import print_final
from ftsys.run_folder.attempts import highest_attempt
from ftsys.run_folder.claim import Claim, claim_run_folder
from ftsys.run_folder.layout import METRICS_LOG, MODEL, PREDICTIONS, RESULTS
from ftsys.run_folder.results import read_results
from ftsys.run_folder.status import read_status_after_crash
from ftsys.run_folder.status_writer import StatusWriter
from ftsys.tasks import Task
from ftsys.train.fault_tolerance.signals import Interruption, stop_with_launcher
from ftsys.train.perf.numa import bind_near_gpu
from ftsys.train.preflight import check_before_claim, check_trainable
from ftsys.train.trainer.checkpointers.resume import check_resume
from launcher.planner.plan import this_machine

CHECK_ONLY = 1
"""Passed as the rank where a run folder is only checked: what is wrong with it is reported, nothing is changed."""


def train(run: RunConfig, overwrite: bool = False, table: bool = True) -> int:
    """Train, evaluate and write the run folder; returns the exit status. A finished run prints its table again.

    Every rank calls it. Raises FtsysError; status.json then holds the exit status that it carries.
    """
    task = resolve_task(run)
    check_trainable(task)
    check_metric_names(task.metrics, task.regression, multi_label=task.multi_label)
    folder, interruption = Path(run.output_dir), Interruption()
    with interruption.watching():
        stop_with_launcher(os.environ)
        claim = claim_run_folder(folder, identity_parts(run), overwrite, rank=CHECK_ONLY)
        if claim.finished:
            _say_done(folder)
            note = "this run is finished; --overwrite starts it from the beginning"
            show(run, task, folder, claim.first_attempt, [note, *_newer_files(run, folder)])
            return DONE
        store, seconds = _prepare(run, task)  # finds wrong input before the folder is claimed and anything is removed
        check_resume(run, store, overwrite)
        interruption.deferred = True  # until a claimed folder has a status to end with
        if is_main_rank():  # another rank would now find rank 0's claim: of another run, if it was given one
            claim = claim_run_folder(folder, identity_parts(run), overwrite)
        status_writer = StatusWriter(folder, claim.attempt)
        with status_writer.ending():
            interruption.end_deferral()
            _train(run, task, store, seconds, claim, status_writer, interruption)
    if table:
        show(run, task, folder, first_attempt=claim.first_attempt)
    return DONE


def _say_done(folder: Path) -> None:
    """Write DONE into status.json: the attempt that wrote the results may have died before it could, or in it."""
    if is_main_rank() and read_status_after_crash(folder).get("exit") != DONE:
        StatusWriter(folder, highest_attempt(folder), "finish").write(DONE, "")


def _newer_files(run: RunConfig, folder: Path) -> list[str]:
    """Return a note for each file of the run's own data that was written after the results: they may not know it."""
    if not isinstance(run.data.source, dict):
        return []
    files = map(Path, filter(os.path.exists, run.data.source.values()))  # not those that cannot be reached any more
    finished = (folder / RESULTS).stat().st_mtime
    return [f"{path} is newer than these results" for path in files if path.stat().st_mtime > finished]


def _prepare(run: RunConfig, task: Task) -> tuple[Store, float]:
    """Return the store and the seconds it took. Raises ConfigError or DataError for a run that no rank could train."""
    quiet_libraries()
    start = time.perf_counter()
    with SplitProgress("prepare") as progress:
        store = ensure_store(run, task, progress)
    show_notes(*check_before_claim(run, task, store))
    if run.trainer:
        from ftsys.train.trial import try_settings

        try_settings(run, task, len(store.splits[str(task.train_split)]))
    return store, time.perf_counter() - start


def _train(
    run: RunConfig,
    task: Task,
    store: Store,
    prepare_seconds: float,
    claim: Claim,
    status_writer: StatusWriter,
    interruption: Interruption,
) -> None:
    _settle_on_device()
    status_writer.write(None, "")
    from ftsys.distributed import leave_process_group
    from ftsys.train.fault_tolerance.watchdog import Watchdog
    from ftsys.train.finish import finish
    from ftsys.train.session import open_session, train_session

    status_writer.phase = "train"
    watchdog = Watchdog(status_writer, interruption, run.train.watchdog_seconds)
    try:
        with watchdog.watching():
            session = open_session(run, task, store, claim, watchdog)
            session.timing["prepare_s"] = prepare_seconds
            train_session(session)
            status_writer.phase = "finish"
            finish(session)
    except StoppedEarly:
        leave_process_group()  # all ranks get here: otherwise a rank sometimes aborts, and 75 is lost
        raise
    session.trainer.end()


def _settle_on_device() -> None:
    """Tell DeepSpeed that there is no GPU, about which it warns otherwise; or bind this rank near its GPU."""
    if this_machine(os.environ).device == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        return
    line = bind_near_gpu(os.environ)
    if line and (is_main_rank() or "FTSYS_OWN_LOG" in os.environ):
        say(f"rank {os.environ.get('RANK', '0')}: {line}")


def show(run: RunConfig, task: Task, folder: Path, first_attempt: int, notes: Sequence[str] = ()) -> None:
    """Print the metric table, a row for each evaluation, and where the results are. Rank 0 only."""
    if not is_main_rank():
        return
    kind = {"synthetic": "synthetic data"}.get(str(run.data.source), str(run.data.source))
    if isinstance(run.data.source, dict):
        kind = "own files"
    places = {
        "results": folder / RESULTS,
        "predictions": folder / PREDICTIONS,
        "model": folder / MODEL,
        "log of metrics": folder / METRICS_LOG,
    }
    rows = rows_of_run(folder, first_attempt)
    notes = [*notes]
    if not rows:
        notes.append("no split but the training split has labels, so there are no metrics: see the predictions")
    there = {name: path for name, path in places.items() if path.exists()}
    kept = (read_results(folder) or {}).get("best")
    best = next((row for row in rows if kept and row.step == kept["step"]), None)
    if kept:
        notes.append(f"* model and predictions are those of step {kept['step']}, with the best {kept['metric']}")
    print_final(rows, title=f"{task.name}, {kind}", places=there, best=best, notes=notes)
