"""Implements `ftsys run-glue FLAGS`: makes a run file of the flags, runs it, and writes the script's result files."""

import os
from collections.abc import Sequence
from pathlib import Path

from ftsys.config import RunConfig, build_run, dump_tree, resolve_task
from ftsys.console.printer import say, show
from ftsys.errors import DONE, ConfigError
from ftsys.ranks import is_main_rank
from ftsys.report.log_filters import quiet_libraries
from ftsys.run_folder.results import read_results
from ftsys.run_glue.flags import read_flags
from ftsys.run_glue.result_files import write_result_files
from ftsys.run_glue.results import RunResults, predict_only, results_of_run
from ftsys.run_glue.translate import Request, short_tree, translate
from launcher.planner.world import usable_gpus


def main(arguments: Sequence[str]) -> int:
    """Run the flags' request, alone or as a rank of any launcher; returns the exit status.

    Raises ConfigError and DataError for wrong input, and the errors of `ftsys.train.run.train`.
    """
    quiet_libraries()
    flags, notes = read_flags(arguments)
    if flags.pop("use_cpu", False) and usable_gpus(os.environ):
        raise ConfigError("--use_cpu cannot be honoured where a GPU is seen: start with CUDA_VISIBLE_DEVICES= instead.")
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    request = translate(flags, ranks)
    run = build_run(request.tree)
    if request.logging_dir:
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", request.logging_dir)
    if is_main_rank():
        show(run_file_text(request, run, ranks))
        for note in (*notes, *request.notes):
            say(f"note: {note}")
    if request.train and (request.overwrite or read_results(Path(run.output_dir)) is None):
        _check_splits(run, request)
    results = _train(run, request) if request.train else _predict(run, request)
    if is_main_rank():
        write_result_files(Path(run.output_dir), resolve_task(run), results, request)
    return DONE


def _check_splits(run: RunConfig, request: Request) -> None:
    """Raise ConfigError for a flag whose split the source lacks, before anything is trained."""
    from ftsys.data.sources.source import open_source

    task = resolve_task(run)
    flags = {"--do_eval": task.evaluation_splits} if request.evaluate else {}
    flags |= {"--do_predict": task.test_splits} if request.predict else {}
    there = set(open_source(run.data, task).splits)
    ConfigError.raise_if(
        f"{flag}: the source has no split {', '.join(sorted(set(names) - there)) or 'for it'}, only "
        f"{', '.join(sorted(there))}: add its data, or leave the flag out."
        for flag, names in flags.items()
        if not names or set(names) - there
    )


def run_file_text(request: Request, run: RunConfig, ranks: int) -> str:
    """Return the run file that is equivalent to the flags, with a comment on how to use it; defaults are left out."""
    head = "# The same as a run file. Save it as RUN.toml and start: ftsys train RUN.toml"
    if not request.train:
        head = "# The task, the data and the model as a run file; nothing is trained."
    size = request.tree["batch"].get("global_size")
    if size and ranks > 1:
        head += f"\n# batch.global_size = {size} is for {ranks} ranks, {size // ranks} each."
    return f"{head}\n{dump_tree(short_tree(request.tree, run))}"


def _train(run: RunConfig, request: Request) -> RunResults:
    from ftsys.train.run import train

    train(run, request.overwrite)
    return results_of_run(Path(run.output_dir))


def _predict(run: RunConfig, request: Request) -> RunResults:
    task = resolve_task(run)
    names = (*(task.evaluation_splits if request.evaluate else ()), *(task.test_splits if request.predict else ()))
    return predict_only(run, task, names)
