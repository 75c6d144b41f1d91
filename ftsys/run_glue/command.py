"""`ftsys run-glue FLAGS`: from the flags to a run file, that run, and the example script's result files."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ftsys.config import RunConfig, build_run, dump_tree, resolve_task
from ftsys.errors import DONE, ConfigError
from ftsys.ranks import is_main_rank
from ftsys.report.log_filters import quiet_libraries
from ftsys.run_glue.flags import read_flags
from ftsys.run_glue.result_files import write_stock_files
from ftsys.run_glue.results import Outcome, outcome_of_run, predict_only
from ftsys.run_glue.translate import Asked, short_tree, translate
from launcher.planner.world import usable_gpus


def main(words: Sequence[str]) -> int:
    """Do what the flags ask for, alone or as a rank of any launcher; returns the exit status.

    Raises ConfigError and DataError for wrong input, and what training raises.
    """
    quiet_libraries()
    flags, told = read_flags(words)
    if flags.pop("use_cpu", False) and usable_gpus(os.environ):
        raise ConfigError("--use_cpu cannot be honoured where a GPU is seen: start with CUDA_VISIBLE_DEVICES= instead.")
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    asked = translate(flags, ranks)
    run = build_run(asked.tree)
    if asked.logging_dir:
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", asked.logging_dir)
    if is_main_rank():
        print(shown(asked, run, ranks), flush=True)
        for note in (*told, *asked.notes):
            print(f"note: {note}", file=sys.stderr, flush=True)
    outcome = _train(run, asked) if asked.train else _predict(run, asked)
    if is_main_rank():
        write_stock_files(Path(run.output_dir), resolve_task(run), outcome, asked)
    return DONE


def shown(asked: Asked, run: RunConfig, ranks: int) -> str:
    """The run file that the flags are equal to, with what to do with it. Keys at their defaults are left out."""
    head = "# The same as a run file. Save it as RUN.toml and start: ftsys train RUN.toml"
    if not asked.train:
        head = "# The task, the data and the model as a run file; nothing is trained."
    size = asked.tree["batch"].get("global_size")
    if size and ranks > 1:
        head += f"\n# batch.global_size = {size} is for {ranks} ranks, {size // ranks} each."
    return f"{head}\n{dump_tree(short_tree(asked.tree, run))}"


def _train(run: RunConfig, asked: Asked) -> Outcome:
    from ftsys.train.run import train

    train(run, asked.overwrite)
    return outcome_of_run(Path(run.output_dir))


def _predict(run: RunConfig, asked: Asked) -> Outcome:
    task = resolve_task(run)
    names = (*(task.evaluation_splits if asked.evaluate else ()), *(task.test_splits if asked.predict else ()))
    return predict_only(run, task, names)
