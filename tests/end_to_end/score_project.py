"""A folder with a tiny classifier and files to score, and starts of `ftsys predict` on it that may be killed."""

import csv
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification

from ftsys.model_files.folder import TOKENIZER_FILES
from tests.end_to_end.attempts import Attempt, start

WORDS = "the a cat dog bird house tree runs sits sleeps under over with red old small green and but".split()
WINDOW = 64
COMMAND = ("predict", "model", "rows.csv", "--output", "out.csv", "--columns", "id", "--precision", "fp32")


def make_score_project(folder: Path, minilm: Path, rows: int) -> Path:
    """Write `model`, a BERT for two classes with a real vocabulary, and `rows.csv`, pairs of many lengths."""
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.5,
        id2label={0: "no", 1: "yes"},
        label2id={"no": 0, "yes": 1},
    )
    BertForSequenceClassification(config).save_pretrained(folder / "model")
    for name in TOKENIZER_FILES:
        if (minilm / name).is_file():
            shutil.copy(minilm / name, folder / "model")
    write_rows(folder / "rows.csv", rows)
    return folder


def write_rows(path: Path, rows: int) -> None:
    """Write pairs of 1 to 20 words each."""
    draw = random.Random(0)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "sentence1", "sentence2"])
        for number in range(rows):
            writer.writerow([number, *(" ".join(draw.choices(WORDS, k=draw.randint(1, 20))) for _ in range(2))])


def small_windows(rank: int, window: str) -> None:
    """Cut windows of a few rows in this process, so that a small file has many."""
    from ftsys.score.windows import ROWS

    ROWS["cpu"] = int(window)


def start_scoring(folder: Path, ranks: int = 1, words: Sequence[str] = (), window: int = WINDOW) -> Attempt:
    """Start `ftsys predict` as `ranks` processes, with windows of `window` rows."""
    return start(folder, ranks, words, (small_windows, str(window)), COMMAND)


def scored(folder: Path, ranks: int = 1, words: Sequence[str] = (), window: int = WINDOW) -> bytes:
    """Score to the end and return the output's bytes."""
    attempt = start_scoring(folder, ranks, words, window)
    statuses = attempt.statuses(600)
    assert statuses == [0] * ranks, f"{statuses}\n{attempt.log()}"
    return (folder / "out.csv").read_bytes()


def kill_once(folder: Path, draw: random.Random, windows: int, window: int = WINDOW) -> bool:
    """Start, wait for a random number of windows more, and kill; returns False where the process was done before."""
    parts = folder / "out.csv.parts"
    begun = len(list(parts.glob("*[0-9]")))
    goal = begun + draw.randint(0, max(1, windows - begun) // 2)
    (process,) = start_scoring(folder, window=window).ranks
    while process.is_alive() and (not parts.exists() or len(list(parts.glob("*[0-9]"))) <= goal):
        process.join(0.005)
    process.join(draw.random() * 0.02)
    process.kill()
    process.join()
    return process.exitcode == -9
