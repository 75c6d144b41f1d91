"""Runs of real processes that start in a second, for tests that need hundreds of attempts.

Each rank is `ftsys train` in a process of its own, forked from a server that has imported everything. Ranks find each
other as under torchrun, by environment variables. Signals, deaths and exit statuses are the operating system's own.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from transformers import BertConfig, BertForSequenceClassification

from ftsys.model_files.folder import TOKENIZER_FILES
from tests.fork_server import fork_server, write_to
from tests.ports import unused_port

RUN_FILE = """
output_dir = "run"
[task]
name = "paraphrase"
[data]
source = "synthetic"
[model]
name = "model"
[batch]
global_size = 16
[train]
max_steps = 12
eval_every = 4
save_every = 2
learning_rate = 1e-3
[engine]
precision = "fp32"
[trainer]
logging_steps = 1
"""
LIFE_SECONDS = 120.0

Prepare = Callable[[int, str], None]
"""Called in a rank before its command, with the rank and its argument: a test may slow or mark what it waits for."""


def make_project(folder: Path, minilm: Path, run_file: str = RUN_FILE) -> Path:
    """A run file and a tiny BERT with a real vocabulary, dropout on."""
    model = folder / "model"
    config = BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=128
    )
    BertForSequenceClassification(config).bert.save_pretrained(model)
    for name in TOKENIZER_FILES:
        if (minilm / name).is_file():
            shutil.copy(minilm / name, model)
    (folder / "run.toml").write_text(run_file)
    return folder


@dataclass
class Attempt:
    """One start of a run: its ranks' processes, in order."""

    ranks: list[ForkServerProcess]
    folder: Path

    def statuses(self, seconds: float = LIFE_SECONDS) -> list[int | None]:
        """Each rank's exit status once all have left, minus the signal for one that a signal ended."""
        deadline = time.monotonic() + seconds
        for process in self.ranks:
            process.join(max(0.0, deadline - time.monotonic()))
        left = [process.exitcode for process in self.ranks]
        for process in self.ranks:
            process.kill()  # nothing for those that have left
        return left

    def log(self) -> str:
        """All that the ranks have said."""
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("rank-*.log")))


def start(
    folder: Path,
    ranks: int,
    words: Sequence[str] = (),
    prepare: tuple[Prepare, str] | None = None,
    command: Sequence[str] = ("train", "run.toml"),
) -> Attempt:
    """Start `ftsys train run.toml WORDS`, or another command of ftsys, in `folder`, as `ranks` processes."""
    port = str(unused_port())
    processes = []
    for rank in range(ranks):
        world = {"OMP_NUM_THREADS": "1", "FTSYS_CACHE": os.environ["FTSYS_CACHE"]}
        if ranks > 1:  # one process alone has no launcher
            world |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
            world |= {"LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        processes.append(
            fork_server().Process(target=_be_a_rank, args=(folder, rank, world, [*command, *words], prepare))
        )
    for process in processes:
        process.start()
    return Attempt(processes, folder)


def _be_a_rank(
    folder: Path, rank: int, world: dict[str, str], words: list[str], prepare: tuple[Prepare, str] | None
) -> None:
    write_to([folder / f"rank-{rank}.log"])
    os.chdir(folder)
    os.environ.update(world)
    if prepare is not None:
        prepare[0](rank, prepare[1])
    from ftsys.cli import main

    sys.exit(main(words))


def finish(folder: Path, ranks: int, words: Sequence[str] = ()) -> bytes:
    """Start until nothing is left to do, which takes one attempt; returns the trained weights' bytes."""
    attempt = start(folder, ranks, words)
    statuses = attempt.statuses()
    assert statuses == [0] * ranks, f"{statuses}\n{attempt.log()}"
    return (folder / "run/model/model.safetensors").read_bytes()


def copy_project(project: Path, name: str) -> Path:
    """Another folder with the same run file and model, in which nothing has run."""
    folder = project.parent / f"{project.name}-{name}"
    folder.mkdir()
    shutil.copy(project / "run.toml", folder)
    (folder / "model").symlink_to(project / "model")
    return folder
