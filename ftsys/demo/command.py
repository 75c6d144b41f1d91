"""Implements `ftsys demo`: trains on the synthetic sample under the deepspeed launcher and prints the metric table.

There is one rank for each GPU, or two CPU ranks without a GPU. Imports no torch, because the user already waits for the
start of the ranks.
"""

import argparse
import base64
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from ftsys.console.child_python import SAFE_PATH, python_command
from ftsys.console.printer import show
from ftsys.cpus.usable import usable_cores
from ftsys.errors import FAILED, ConfigError, StorageError
from ftsys.files.storage_errors import is_full
from ftsys.ranks import free_port
from ftsys.run_folder.layout import MODEL, PREDICTIONS, RESULTS
from ftsys.run_folder.status import read_status_after_crash
from ftsys.shipped import shipped
from launcher.planner.world import usable_gpus

CPU_RANKS = 2
RUN_FILE = "configs/runs/demo.toml"
LAUNCHER = "import gc; gc.disable(); from deepspeed.launcher.launch import main; main()"
"""The garbage collector is off: while torch is imported, it takes a fifth of the time and frees nothing."""
DESCRIPTION = (
    "Train a small model on the synthetic sample, one rank for each GPU or two CPU ranks, and print its metrics."
)
EPILOG = "Keys of the demo's run file can be overridden with --section.key VALUE, for example --train.epochs 1."


@dataclass(frozen=True)
class Devices:
    """The devices of the ranks: `gpus` as in CUDA_VISIBLE_DEVICES (none on a CPU), and the number of CPU `cores`."""

    gpus: tuple[str, ...]
    cores: int

    @property
    def ranks(self) -> int:
        """The number of ranks: one for each GPU, or two on a CPU."""
        return len(self.gpus) or CPU_RANKS

    @property
    def threads(self) -> int:
        """The number of CPU threads of each rank."""
        return max(1, self.cores // self.ranks)

    def __str__(self) -> str:
        kind = "GPU" if self.gpus else "CPU"
        ranks, threads = ("s" if number > 1 else "" for number in (self.ranks, self.threads))
        return f"{self.ranks} {kind} rank{ranks}, {self.threads} thread{threads} each"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit status. `--section.key value` overrides the demo's run file.

    Raises ConfigError for a wrong override and where no run folder can be made, StorageError for a full disk.
    """
    parser = argparse.ArgumentParser(prog="ftsys demo", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False)
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs"),
        metavar="FOLDER",
        help="the parent folder of the run folder; default: runs",
    )
    known, overrides = parser.parse_known_args(arguments)
    devices = Devices(usable_gpus(os.environ), usable_cores().usable)
    run_file = shipped(RUN_FILE)
    if overrides:
        check_overrides(run_file, overrides)
    run_folder = new_run_folder(known.runs)
    show(f"Demo: a small paraphrase task, synthetic data, {devices}, deepspeed launcher. Results: {run_folder}")
    program = ["train", "--no-table", str(run_file), "--output_dir", str(run_folder), *overrides]
    launched = run_ranks(launch_command(devices, free_port(), program), rank_environment(devices, os.environ))
    status = exit_status(run_folder, launched)
    if status == 0:
        print_results(run_file, overrides, run_folder)
    return status


def check_overrides(run_file: Path, overrides: Sequence[str]) -> None:
    """Find wrong overrides before a folder is made and ranks are started. Raises ConfigError."""
    from ftsys.config import load_run, parse_overrides

    if "output_dir" in parse_overrides(overrides):
        raise ConfigError("--output_dir cannot be used with the demo: name the parent folder with --runs FOLDER.")
    load_run(run_file, overrides)


def new_run_folder(parent: Path) -> Path:
    """Make and return the next of PARENT/demo-001, demo-002, ...; safe for several starts at once.

    Raises ConfigError if it cannot be made, StorageError if the disk is full.
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
        raise (StorageError if is_full(error) else ConfigError)(text) from error


def launch_command(devices: Devices, port: int, program: Sequence[str]) -> list[str]:
    """Return the command of deepspeed's launcher for one machine, which starts `python -m ftsys PROGRAM` on each rank.

    `deepspeed --num_gpus N --module ftsys PROGRAM` starts the same command. Without the outer process, torch is
    imported once less, and a signal reaches the ranks: the outer process would exit and leave the ranks running.
    """
    slots = {"localhost": list(devices.gpus or range(devices.ranks))}
    world = base64.urlsafe_b64encode(json.dumps(slots).encode()).decode()
    launcher = python_command("-u", "-c", LAUNCHER, f"--world_info={world}")
    where = ["--master_addr=127.0.0.1", f"--master_port={port}", "--log_level=error", "--no_local_rank"]
    return [*launcher, *where, "--module", "ftsys", *program]


def rank_environment(devices: Devices, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of launcher and ranks: each rank's share of threads, no device probe on a CPU."""
    chosen = {"OMP_NUM_THREADS": str(devices.threads)}
    if not devices.gpus:
        chosen["DS_ACCELERATOR"] = "cpu"
    return {**environment, **chosen, **SAFE_PATH}


def run_ranks(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the launcher and return its exit status. Sends it TERM on INT, TERM and HUP, so that the ranks save and exit.

    The launcher runs in its own session, so that Ctrl-C reaches the ranks once, through the launcher, and not from the
    terminal too.
    """
    process: subprocess.Popen[bytes] | None = None
    stopped = False

    def pass_on(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        if process is not None:
            process.terminate()

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        process = subprocess.Popen(command, env=dict(environment), start_new_session=True)
        if stopped:  # the signal came before the process was started
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
    """Print a row for each evaluation, the bag-of-words baseline on the same pairs, and the paths of the results."""
    from threadpoolctl import threadpool_limits

    from ftsys.config import load_run, resolve_task
    from ftsys.data.sources.source import open_source
    from ftsys.demo.bag_of_words import bag_of_words_baseline
    from ftsys.report.runs import rows_of_run
    from ftsys.report.table import Row, print_final

    run = load_run(run_file, overrides)
    task = resolve_task(run)
    source = open_source(run.data, task)
    train, validation = (source.batches(split) for split in (task.train_split or "", task.evaluation_splits[0]))
    with threadpool_limits(1):  # such a small regression is many times slower on many threads
        baseline = Row(label="bag of words (baseline)", metrics=bag_of_words_baseline(train, validation))
    rows = rows_of_run(run_folder)
    kind = "synthetic data" if source.synthetic else str(run.data.source)
    places = {
        "results": run_folder / RESULTS,
        "predictions": run_folder / PREDICTIONS,
        "model": run_folder / MODEL,
    }
    print_final(rows, title=f"{task.name}, {kind}", extra_rows=[baseline], places=places)
