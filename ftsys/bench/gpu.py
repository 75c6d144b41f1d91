"""Runs the benchmarks that need a GPU within nine minutes, the most important first; each stage is one command.

A stage that does not fit into the remaining time is skipped, a stage that takes too long is ended, and the notes name
both. The records of the other stages are kept, and the summary is written after each stage: it names the stages that
are still due, so that it says what is missing if this command is killed. `--dry` runs the same stages with tiny models,
on a CPU too.
"""

import argparse
import importlib.util
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ftsys.bench.harness.output import Findings, add_output_option, conclude
from ftsys.bench.harness.record import Measurement, write_record
from ftsys.console.child_python import python_command
from ftsys.console.parent_exit import signalled_at_our_exit
from ftsys.console.printer import say
from ftsys.errors import ConfigError

SECONDS = 540.0
"""Time limit for all stages."""
GRACE_SECONDS = 5.0
"""Time between SIGTERM and SIGKILL for a stage that takes too long."""
FTSYS = tuple(python_command("-m", "ftsys", "bench"))
GPU_TESTS = Path(__file__).parents[2] / "tests/gpu"


@dataclass(frozen=True)
class Stage:
    """One stage: its command, its command with tiny models, and the seconds it is expected to take."""

    name: str
    command: tuple[str, ...]
    dry: tuple[str, ...]
    needs: float


def stages() -> list[Stage]:
    """List the stages, the most important first."""
    against, long_blocks = ("--peers", "ours", "best"), ("--steps", "20", "--repeats", "9")
    recorded, tiny = ("--peers", "ours", "ours-graphs", "best"), ("--models", "tiny", "--repeats", "1")
    at_32 = ("step", "--batch", "32")
    found = [
        _bench("step-32", at_32, (*recorded, "--models", "bert-base", *long_blocks), (*against, *tiny), 110),
        _bench(
            "step-16384",
            ("step", "--peers", "ours", "--tokens", "16384"),
            ("--models", "bert-base", *long_blocks),
            tiny,
            60,
        ),
        _bench(
            "train-large",
            ("train", "--peers", "ours", "--batch", "128", "--no-eval"),
            ("--models", "bert-large", "--rows", "3668", "--epochs", "3", "--repeats", "2"),
            (*tiny, "--rows", "256", "--epochs", "1"),
            90,
        ),
        _bench("eval", ("eval", *against), ("--models", "bert-base"), tiny, 70),
        _bench("startup", ("startup",), ("--models", "minilm", "--repeats", "3"), tiny, 70),
        _bench("step-minilm", at_32, (*recorded, "--models", "minilm", *long_blocks), (*against, *tiny), 80),
    ]
    if GPU_TESTS.is_dir() and importlib.util.find_spec("pytest") is not None:
        tests = tuple(python_command("-m", "pytest", "-q", os.path.relpath(GPU_TESTS), "--gpu-seconds", "60"))
        found.insert(1, Stage("tests", tests, (*tests, "--collect-only"), 60))
    return found


def _bench(name: str, words: tuple[str, ...], real: tuple[str, ...], dry: tuple[str, ...], needs: float) -> Stage:
    begin = (*FTSYS, *words, "--name", f"gpu-{name}")
    return Stage(name, (*begin, *real), (*begin, *dry), needs)


def run_stages(
    due: Sequence[Stage],
    seconds: float,
    dry: bool,
    more: Sequence[str] = (),
    tell: Callable[[str], object] = say,
    clock: Callable[[], float] = time.monotonic,
    keep: Callable[[Findings], object] = lambda found: None,
) -> tuple[Findings, list[str]]:
    """Run each stage that fits into `seconds`; returns their times, and the names of stages that failed or were ended.

    `more` is appended to every `ftsys bench` command. `keep` gets what was found so far, before the first stage and
    after each one.
    """
    found, wrong, end = Findings(), list[str](), clock() + seconds
    table = found.tables["stages"] = {}
    for number, stage in enumerate(due):
        found.settings["still due"] = [each.name for each in due[number:]]
        keep(found)
        left = end - clock()
        if left < (0.0 if dry else stage.needs):
            found.notes.append(f"{stage.name}: left out, {left:.0f} s remain and it needs about {stage.needs:.0f} s")
            continue
        command = stage.dry if dry else stage.command
        tell(f"{stage.name}: {' '.join(command[1:])}")
        start = clock()
        status = _run([*command, *(more if command[: len(FTSYS)] == FTSYS else ())], left)
        found.measurements[stage.name] = Measurement.of([clock() - start], "s")
        found.settings[stage.name] = {"command": command[1:], "exit status": status}
        table[stage.name] = {"seconds": clock() - start}
        if status:
            wrong.append(stage.name)
            found.notes.append(f"{stage.name}: exit status {status}" if status > 0 else f"{stage.name}: out of time")
    found.settings["still due"] = []
    return found, wrong


def _run(command: Sequence[str], seconds: float) -> int:
    """Run a command in its own process group; returns its exit status, negative where the time ran out.

    The whole group is ended, peers included. On Linux the command gets SIGTERM, too, where this process is killed.
    """
    process = subprocess.Popen(command, start_new_session=True, preexec_fn=signalled_at_our_exit(signal.SIGTERM))
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return -signal.SIGTERM
    except BaseException:  # Ctrl-C and SIGTERM reach this process only: the stage has its own session
        os.killpg(process.pid, signal.SIGKILL)
        raise


def check_gpu() -> None:
    """Raise ConfigError where torch sees no GPU."""
    import torch

    if not torch.cuda.is_available():
        raise ConfigError(
            f"ftsys bench gpu: torch {torch.__version__} sees no CUDA device. Run it on a machine with a GPU and the "
            "CUDA build of torch (make install TORCH=cuda), or add --dry for tiny models on this machine."
        )


def main(words: Sequence[str]) -> int:
    """Run `ftsys bench gpu`; returns 0, or 1 where a stage failed. Raises ConfigError without a GPU."""
    parser = argparse.ArgumentParser(prog="ftsys bench gpu", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--dry", action="store_true", help="run the same stages with tiny models and one repeat; needs no GPU"
    )
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help=f"time limit for all stages (default {SECONDS:.0f})"
    )
    parser.add_argument("--only", nargs="+", metavar="STAGE", help="run only these stages")
    add_output_option(parser)
    options = parser.parse_args(words)
    due = stages()
    unknown = set(options.only or ()) - {stage.name for stage in due}
    ConfigError.raise_if(
        f"--only {name!r} is not a stage. Use some of {[stage.name for stage in due]}." for name in sorted(unknown)
    )
    if not options.dry:
        check_gpu()
    if options.only:
        due = [stage for stage in due if stage.name in options.only]
    more = ("--output", str(options.output)) if options.output is not None else ()
    name = "gpu-dry" if options.dry else "gpu"

    def keep(found: Findings) -> None:
        if options.output is not None:
            write_record(options.output, name, found.measurements, found.ratios, found.settings)

    found, wrong = run_stages(due, options.seconds, options.dry, more, keep=keep)
    conclude(name, found, options.output)
    return int(bool(wrong))
