"""`ftsys demo`: train on the synthetic sample under the deepspeed launcher and print the metric table.

Every GPU is a rank; without one, two CPU ranks. Imports no torch: the ranks' own start is what a person waits for.
"""

import argparse
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from ftsys.errors import FAILED, ConfigError, StorageError
from ftsys.run_folder.layout import METRICS_LOG, MODEL, PREDICTIONS, RESULTS
from ftsys.run_folder.status import read_status_after_crash
from launcher.planner.world import usable_gpus

CPU_RANKS = 2
RUN_FILE = Path("configs/runs/demo.toml")
LAUNCHER = "import gc; gc.disable(); from deepspeed.launcher.launch import main; main()"
"""Python's collector walks all that torch has loaded again and again, a fifth of the import, and finds nothing."""


@dataclass(frozen=True)
class Devices:
    """What the ranks compute on: `gpus` as CUDA_VISIBLE_DEVICES names them, none for CPU, and `cores`."""

    gpus: tuple[str, ...]
    cores: int

    @property
    def ranks(self) -> int:
        """One a GPU, or two on the CPU."""
        return len(self.gpus) or CPU_RANKS

    @property
    def threads(self) -> int:
        """CPU threads for each rank."""
        return max(1, self.cores // self.ranks)

    def __str__(self) -> str:
        kind = "GPU" if self.gpus else "CPU"
        ranks, threads = ("s" if number > 1 else "" for number in (self.ranks, self.threads))
        return f"{self.ranks} {kind} rank{ranks}, {self.threads} thread{threads} each"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit status. `--section.key value` overrides the demo's run file.

    Raises ConfigError where the run file is missing and StorageError where no run folder can be made.
    """
    parser = argparse.ArgumentParser(prog="ftsys demo", description=__doc__, allow_abbrev=False)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the folder that the run folder is made in")
    known, overrides = parser.parse_known_args(arguments)
    devices = Devices(usable_gpus(os.environ), len(os.sched_getaffinity(0)))
    run_file, run_folder = find_run_file(), new_run_folder(known.runs)
    print(
        f"Demo: a small paraphrase task, synthetic data, {devices}, deepspeed launcher. Results: {run_folder}",
        flush=True,
    )
    program = ["train", "--no-table", str(run_file), "--output_dir", str(run_folder), *overrides]
    launched = run_ranks(launch_command(devices, free_port(), program), rank_environment(devices, os.environ))
    status = exit_status(run_folder, launched)
    if status == 0:
        print_results(run_file, overrides, run_folder)
    return status


def find_run_file() -> Path:
    """The demo's run file, in the checkout or beside an installed wheel. Raises ConfigError if it is in neither."""
    checkout = Path(__file__).parents[2] / RUN_FILE
    installed = Path(sysconfig.get_path("data")) / "share" / "ftsys" / RUN_FILE
    for path in (checkout, installed):
        if path.is_file():
            return path
    raise ConfigError(f"the demo's run file is neither {str(checkout)!r} nor {str(installed)!r}: install ftsys again.")


def new_run_folder(parent: Path) -> Path:
    """Make and return the next of PARENT/demo-001, demo-002, ...; safe among several starts at once.

    Raises StorageError where it cannot be made.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        numbers = [int(path.name[5:]) for path in parent.glob("demo-*") if path.name[5:].isdecimal()]
        number = max(numbers, default=0) + 1
        while True:
            folder = parent / f"demo-{number:03d}"
            try:
                folder.mkdir()
                return folder
            except FileExistsError:
                number += 1
    except OSError as error:
        text = f"cannot make a run folder in {str(parent)!r}: {error.strerror}. Name another with --runs FOLDER."
        raise StorageError(text) from error


def free_port() -> int:
    """A TCP port that could be bound a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch_command(devices: Devices, port: int, program: Sequence[str]) -> list[str]:
    """The deepspeed launcher's part for one machine, starting `python -m ftsys PROGRAM` in every rank.

    This is what `deepspeed --num_gpus N --module ftsys PROGRAM` itself starts. Calling it directly saves one more
    import of torch, and a signal reaches the ranks: the outer part dies of it and leaves them behind.
    """
    slots = {"localhost": list(devices.gpus or range(devices.ranks))}
    world = base64.urlsafe_b64encode(json.dumps(slots).encode()).decode()
    launcher = [sys.executable, "-u", "-c", LAUNCHER, f"--world_info={world}"]
    where = ["--master_addr=127.0.0.1", f"--master_port={port}", "--log_level=error", "--no_local_rank"]
    return [*launcher, *where, "--module", "ftsys", *program]


def rank_environment(devices: Devices, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of launcher and ranks: threads shared out, no device probe on a CPU."""
    chosen = {"OMP_NUM_THREADS": str(devices.threads)}
    if not devices.gpus:
        chosen["DS_ACCELERATOR"] = "cpu"
    return {**environment, **chosen}


def run_ranks(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the launcher to its end and return its status. INT and TERM go to it as TERM: the ranks save and leave.

    It gets a session of its own, so that Ctrl-C reaches the ranks once and through the launcher, not from the terminal
    as well.
    """
    process: subprocess.Popen[bytes] | None = None
    stopped = False

    def pass_on(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        if process is not None:
            process.terminate()

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        process = subprocess.Popen(command, env=dict(environment), start_new_session=True)
        if stopped:  # the signal came before there was anything to pass it on to
            process.terminate()
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_status(run_folder: Path, launched: int) -> int:
    """Return the run's exit status from status.json, because launchers hide it.

    Without one, returns the launcher's status, or 1 if that is 0 or a signal's.
    """
    status = read_status_after_crash(run_folder).get("exit")
    return max(launched, FAILED) if status is None else int(status)


def print_results(run_file: Path, overrides: Sequence[str], run_folder: Path) -> None:
    """Print a row an evaluation, the word-count baseline on the same pairs, and where everything lies."""
    from threadpoolctl import threadpool_limits

    from ftsys.config import load_run, resolve_task
    from ftsys.data.sources.source import open_source
    from ftsys.demo.bag_of_words import bag_of_words_baseline
    from ftsys.report.table import Row, history_rows, print_final
    from ftsys.run_folder.metrics_log import read_metrics

    run = load_run(run_file, overrides)
    task = resolve_task(run)
    source = open_source(run.data, task)
    train, validation = (source.batches(split) for split in (task.train_split or "", task.evaluation_splits[0]))
    with threadpool_limits(1):  # so small a regression runs many times slower on many threads
        words = Row(label="bag of words (baseline)", metrics=bag_of_words_baseline(train, validation))
    rows = history_rows(read_metrics(run_folder / METRICS_LOG))
    kind = "synthetic data" if source.synthetic else str(run.data.source)
    places = {
        "results": run_folder / RESULTS,
        "predictions": run_folder / PREDICTIONS,
        "model": run_folder / MODEL,
    }
    print_final(rows, title=f"{task.name}, {kind}", extra_rows=[words], places=places)
