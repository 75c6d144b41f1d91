"""Measures the time from the command to the end of the first optimizer step: `ftsys train` and the course's script.

Starts are interleaved. Each is a new process with a warm page cache: ours finds its store, the stock script finds the
tokens that `datasets` has cached.
"""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ftsys.bench.harness.inputs import MAX_LENGTH, Pairs, read_pairs
from ftsys.bench.harness.measuring import note
from ftsys.bench.harness.models import model_folders
from ftsys.bench.harness.output import Findings, bench_parser, conclude, parse
from ftsys.bench.harness.rounds import Blocks, Figures, PeerFailed, in_turns
from ftsys.config import build_run, dump_toml
from ftsys.console.child_python import python_command
from ftsys.console.printer import say
from ftsys.run_folder.layout import METRICS_LOG

MODELS = ("minilm",)
SECONDS = 300.0
"""Time limit of a start."""
POLL_SECONDS = 0.05
SCRIPT = Path(__file__).with_name("stock_start.py")
OURS, STOCK = "ftsys train", "stock script"


class OurStart:
    """Runs `ftsys train` until its first step is in metrics.jsonl, then kills it."""

    def __init__(self, run_file: Path, work: Path) -> None:
        self._run_file, self._work, self._count = run_file, work, 0

    def block(self) -> Figures:
        """Measure one start, in a new run folder."""
        self._count += 1
        folder = self._work / f"run-{self._count}"
        command = python_command("-m", "ftsys", "train", str(self._run_file), "--output_dir", str(folder))
        log = self._work / "ours.log"
        start = time.time()
        with log.open("w") as stream:
            process = subprocess.Popen(command, stdout=stream, stderr=stream)
        try:
            return {"seconds": _first_line(folder / METRICS_LOG, process, log, start) - start}
        finally:
            process.kill()
            process.wait()


def _first_line(path: Path, process: "subprocess.Popen[bytes]", log: Path, start: float) -> float:
    """Wait for the first line of a metrics.jsonl, and return its time."""
    while time.time() - start < SECONDS:
        if path.exists() and (lines := path.read_text(encoding="utf-8").splitlines(keepends=True)):
            if lines[0].endswith("\n"):
                return float(json.loads(lines[0])["time"])
        elif process.poll() not in (None, 0):
            break
        time.sleep(POLL_SECONDS)
    raise PeerFailed(f"ftsys train has trained no step:\n{log.read_text(errors='replace')[-3000:]}")


class StockStart:
    """Runs the course's script, which ends after its first step and prints the time of that step."""

    def __init__(self, data: Path, model: Path, work: Path) -> None:
        # Its -P keeps the script's folder out of sys.path: some modules there have the names of other packages.
        self._command = python_command(str(SCRIPT), str(data), str(model), str(work / "stock-run"))

    def block(self) -> Figures:
        """Measure one start."""
        start = time.time()
        done = subprocess.run(self._command, capture_output=True, text=True, timeout=SECONDS, check=False)
        said = [line for line in done.stdout.splitlines() if line.startswith("first step ")]
        if done.returncode or not said:
            raise PeerFailed(f"the stock script has trained no step:\n{done.stderr[-3000:]}")
        return {"seconds": float(said[0].split()[-1]) - start}


def bench_startup(models: Sequence[str] = MODELS, repeats: int = 5, rows: int | None = None) -> Findings:
    """Measure `repeats` starts of each; the first start of each fills stores and caches and is dropped."""
    found = Findings(settings={"repeats": repeats, "warm_up": 1, "until": "the end of the first optimizer step"})
    with tempfile.TemporaryDirectory(prefix="ftsys-bench-") as scratch:
        work, pairs = Path(scratch), read_pairs(rows)
        data, files = save_texts(pairs, work)
        for name, folder in model_folders(models, work).items():
            say(f"{name}: {pairs.rows('train'):,} pairs of {pairs.text}")
            starts: dict[str, Blocks] = {
                OURS: OurStart(write_run(pairs, files, folder, work), work),
                STOCK: StockStart(data, folder, work),
            }
            blocks = in_turns(starts, repeats, tell=say)
            seconds = {peer: [block["seconds"] for block in blocks[peer]] for peer in starts}
            medians = {peer: note(found, f"{name}, {peer}: first step", seconds[peer], "s") for peer in starts}
            shares = [own / theirs for own, theirs in zip(seconds[OURS], seconds[STOCK], strict=True)]
            ratio = found.ratio(f"{name}: {OURS} / {STOCK}", shares)
            table = found.tables[f"{name}: from the command to the end of the first step"] = {
                peer: {"seconds": medians[peer]} for peer in starts
            }
            table[OURS] |= {"of the stock script": ratio.median, "+-": ratio.spread}
            found.settings[name] = {"text": pairs.text, "pairs": pairs.rows("train"), "seconds": seconds}
    return found


def save_texts(pairs: Pairs, work: Path) -> tuple[Path, dict[str, str]]:
    """Save the texts for `datasets.load_from_disk` and as one JSONL file per split; returns both paths."""
    from datasets import Dataset, DatasetDict, disable_progress_bars

    disable_progress_bars()
    columns = {
        name: {"sentence1": split.first, "sentence2": split.second, "label": split.labels.tolist()}
        for name, split in pairs.of.items()
    }
    DatasetDict({name: Dataset.from_dict(found) for name, found in columns.items()}).save_to_disk(work / "texts")
    files = {}
    for name, found in columns.items():
        rows = [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]
        files[name] = str(work / f"{name}.jsonl")
        Path(files[name]).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return work / "texts", files


def write_run(pairs: Pairs, files: dict[str, str], model: Path, work: Path) -> Path:
    """Write a run file with one optimizer step, which is logged; returns its path."""
    run = build_run(
        {
            "output_dir": str(work / "run"),
            "task": {"name": pairs.task.name},
            "data": {"source": files, "max_length": MAX_LENGTH, "store": str(work / "stores")},
            "model": {"name": str(model)},
            "train": {"max_steps": 1, "eval_every": "never", "save_every": "never"},
            "trainer": {"logging_steps": 1},
        }
    )
    path = work / f"{model.name}.toml"
    path.write_text(dump_toml(run), encoding="utf-8")
    return path


def main(words: Sequence[str]) -> int:
    """Run `ftsys bench startup`: measure, print, write record and plot."""
    parser = bench_parser("startup", "Measure the time from the command to the first optimizer step.", 5, MODELS)
    options = parse(parser, words)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the models are local: no lookup is needed
    found = bench_startup(options.models, options.repeats, 64 if options.quick else None)
    conclude(options.name, found, options.output)
    return 0
