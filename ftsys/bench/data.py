"""The data path against its peers: preparing, assembling a batch, opening a store.

Peers: the `tokenizers` library's own batch calls, `datasets.map`, and `Dataset.__getitems__` with
`DataCollatorWithPadding`. Text is real MRPC if FTSYS_GLUE_DIR names a folder of GLUE's files, else the synthetic
synthetic sample, repeated.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from ftsys.bench.harness.output import add_output_option
from ftsys.bench.harness.record import Measurement, interleaved, write_record
from ftsys.data.build_store import StoreRequest, write_store
from ftsys.data.sources.source import TextBatch, open_source
from ftsys.data.store.index import BatchTable, SplitIndex, StoreIndex, TokenizerFacts
from ftsys.data.store.reader import Store
from ftsys.data.tokenize.tokenizer import load_tokenizer
from ftsys.model_files.folder import BUNDLED, check_model_folder
from ftsys.tasks import GLUE, PARAPHRASE, Task

MAX_LENGTH = 128
BATCH = 32
CALLS = 100
"""Batches in one timed loop."""
_OPEN = """
import json, resource, sys, time
from pathlib import Path
from ftsys.data.store.reader import Store
resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
before, start = resident(), time.perf_counter()
store = Store.open(sys.argv[1])
taken = time.perf_counter() - start
print(json.dumps([taken, resident() - before, sum(map(len, store.splits.values()))]))
"""


@dataclass(frozen=True)
class Texts:
    """Pairs in memory, as a source of one split; `synthetic` says that the project made them up."""

    first: list[str]
    second: list[str]
    synthetic: bool
    fingerprint: str = "0" * 64
    splits: tuple[str, ...] = ("train",)

    def rows(self, split: str) -> int:
        """Number of pairs."""
        return len(self.first)

    def batches(self, split: str, rows_per_batch: int = 1024) -> Iterator[TextBatch]:
        """The pairs, labelled 0 and 1 in turn."""
        for start in range(0, len(self.first), rows_per_batch):
            first = self.first[start : start + rows_per_batch]
            labels = np.arange(start, start + len(first)) % 2
            yield TextBatch(start, first, self.second[start : start + rows_per_batch], labels)


def bench_texts(rows: int) -> tuple[Texts, Task]:
    """At least MRPC's own text, repeated up to `rows` pairs."""
    glue = os.environ.get("FTSYS_GLUE_DIR")
    task = GLUE["mrpc"] if glue else PARAPHRASE
    source = open_source(SimpleNamespace(source=str(Path(glue) / "MRPC") if glue else "synthetic"), task)
    batches = list(source.batches("train"))
    first = [text for batch in batches for text in batch.first]
    second = [text for batch in batches for text in batch.second or ()]
    times = -(-rows // len(first))
    return Texts((first * times)[:rows], (second * times)[:rows], source.synthetic), task


def bench_data(rows: int = 20_000, repeats: int = 5, model: str = BUNDLED) -> dict[str, Any]:
    """Measure all three; returns {"measurements": ..., "ratios": ..., "settings": ...}.

    Rates are pairs a second; a batch and an opening are seconds, memory bytes.
    """
    texts, task = bench_texts(rows)
    folder = check_model_folder(model)
    measurements: dict[str, Measurement] = {}
    with tempfile.TemporaryDirectory(prefix="ftsys-bench-") as work:
        request = StoreRequest(texts, task, folder, MAX_LENGTH, Path(work))
        mapped = _measure_prepare(request, texts, repeats, measurements)
        _measure_batch(Store.open(_make_store(request, "kept")), mapped, folder, repeats, measurements)
        _measure_opening(Path(work) / "sparse", repeats, measurements)
    return {
        "measurements": measurements,
        "ratios": _ratios(measurements),
        "settings": {
            "pairs": rows,
            "text": "synthetic sample" if texts.synthetic else "MRPC",
            "model": model,
            "max_length": MAX_LENGTH,
            "batch": BATCH,
            "repeats": repeats,
            "warm_up": 1,
        },
    }


def _ratios(found: dict[str, Measurement]) -> dict[str, float]:
    rate = {name: value.median for name, value in found.items()}
    return {
        "prepare / tokenizers encode_batch": rate["prepare"] / rate["tokenizers encode_batch"],
        "prepare / tokenizers encode_batch_fast": rate["prepare"] / rate["tokenizers encode_batch_fast"],
        "prepare / best datasets.map": rate["prepare"] / max(rate["datasets.map 1"], rate["datasets.map 2"]),
        "datasets + DataCollatorWithPadding / packed batch": (
            rate["padded batch of 32, datasets"] / rate["packed batch of 32"]
        ),
    }


def _make_store(request: StoreRequest, name: str) -> Path:
    """A store of its own, whatever is there already."""
    tokenizer = load_tokenizer(request.model_folder, request.max_length)
    return write_store(request, f"{name:0<16}", tokenizer, uuid.uuid4().hex, lambda *_: None)


def _measure_prepare(request: StoreRequest, texts: Texts, repeats: int, out: dict[str, Measurement]) -> Any:
    """Rates of preparing and its peers; returns the Dataset that `datasets.map` made."""
    from datasets import Dataset, disable_progress_bars
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    disable_progress_bars()
    library = Tokenizer.from_file(str(request.model_folder / "tokenizer.json"))
    library.no_padding()
    library.enable_truncation(request.max_length)
    ours = load_tokenizer(request.model_folder, request.max_length)
    theirs = AutoTokenizer.from_pretrained(request.model_folder)
    labels = [row % 2 for row in range(len(texts.first))]
    raw = Dataset.from_dict({"first": texts.first, "second": texts.second, "labels": labels})
    pairs, kept = list(zip(texts.first, texts.second, strict=True)), {}

    def tokenize(batch: dict[str, list[str]]) -> Any:
        return theirs(batch["first"], batch["second"], truncation=True, max_length=MAX_LENGTH)

    def mapped(processes: int | None) -> None:
        file = str(request.root / f"map-{processes}-{uuid.uuid4().hex}.arrow")
        kept["map"] = raw.map(
            tokenize, batched=True, num_proc=processes, cache_file_name=file, remove_columns=["first", "second"]
        )

    def prepared() -> None:
        shutil.rmtree(write_store(request, uuid.uuid4().hex, ours, uuid.uuid4().hex, lambda *_: None))

    works: dict[str, Callable[[], object]] = {
        "prepare": prepared,
        "tokenizers encode_batch": lambda: library.encode_batch(pairs),
        "tokenizers encode_batch_fast": lambda: library.encode_batch_fast(pairs),
        "datasets.map 1": lambda: mapped(None),
        "datasets.map 2": lambda: mapped(2),
    }
    for name, times in interleaved(works, repeats).items():
        out[name] = Measurement.of([len(pairs) / taken for taken in times], "pairs/s", higher_is_better=True)
    return kept["map"]


def _measure_batch(store: Store, mapped: Any, folder: Path, repeats: int, out: dict[str, Measurement]) -> None:
    """Seconds from row numbers to tensors, packed from the store and padded from `datasets`, the same rows."""
    from transformers import AutoTokenizer, DataCollatorWithPadding

    from ftsys.data.batching.collate import pack

    split, collate = store.splits["train"], DataCollatorWithPadding(AutoTokenizer.from_pretrained(folder))
    draws = np.random.default_rng(0).integers(0, split.rows, (CALLS, BATCH))
    lists = draws.tolist()

    def packed() -> None:
        for rows in draws:
            pack(split.gather(rows), True)

    def padded() -> None:
        for rows in lists:
            collate(mapped.__getitems__(rows))

    # in loops, as a loader runs them: one call right after a peer's measured up to seven times slower under load
    works: dict[str, Callable[[], object]] = {"packed batch of 32": packed, "padded batch of 32, datasets": padded}
    for name, times in interleaved(works, 5 * repeats).items():
        out[name] = Measurement.of([taken / CALLS for taken in times], "s")


def _measure_opening(folder: Path, repeats: int, out: dict[str, Measurement]) -> None:
    """Seconds and bytes that opening 100 million rows costs a process that has imported the store's module."""
    sparse_store(folder, 100_000_000)
    command = [sys.executable, "-c", _OPEN, str(folder)]
    found = [json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout) for _ in range(repeats)]
    out["open 100 million rows"] = Measurement.of([taken for taken, _, _ in found], "s")
    out["open 100 million rows, memory"] = Measurement.of([float(grown) for _, grown, _ in found], "bytes")


def sparse_store(folder: Path, rows: int, tokens_per_row: int = 53, rows_per_batch: int = 1 << 16) -> None:
    """A store whose Arrow file is one hole of the right size; every example's numbers read as zeros."""
    table, place, left = BatchTable(), 1024, rows
    while left:
        here = min(left, rows_per_batch)
        tokens = here * tokens_per_row
        sizes = {"list_offsets": 4 * here + 4, "values": 2 * tokens, "first_length": 2 * here, "label": 8 * here}
        table.offset.append(place)
        table.rows.append(here)
        place += 512 + 8 * here
        for name, size in sizes.items():
            getattr(table, name).append(place)
            place += -(-size // 8) * 8
        left -= here
    facts = TokenizerFacts("0" * 64, 0, 30522, True, MAX_LENGTH)
    histogram = [0] * tokens_per_row + [rows]
    split = SplitIndex("train.arrow", rows, True, rows * tokens_per_row, histogram, place, "0" * 64, table)
    index = StoreIndex("0" * 64, "0" * 64, facts, "uint16", "int64", rows_per_batch, {"train": split})
    folder.mkdir(parents=True)
    with (folder / "train.arrow").open("wb") as stream:
        stream.truncate(place)
    (folder / "index.json").write_bytes(index.to_bytes())


def print_table(found: dict[str, Any]) -> None:
    """Measurements and ratios as two tables on standard output."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"data path, {found['settings']['pairs']} pairs of {found['settings']['text']}")
    for heading in ("what", "median", "spread", "unit"):
        table.add_column(heading, justify="left" if heading in ("what", "unit") else "right")
    for name, value in found["measurements"].items():
        table.add_row(name, f"{value.median:.6g}", f"{value.spread:.2g}", value.unit)
    ratios = Table("ratio", "value")
    for name, ratio in found["ratios"].items():
        ratios.add_row(name, f"{ratio:.2f}")
    console = Console()
    console.print(table)
    console.print(ratios)


def main(argv: Sequence[str]) -> int:
    """`ftsys bench data`: measure, print, and record into `--out` (by default benchmarks/results where it exists)."""
    parser = argparse.ArgumentParser(prog="ftsys bench data", description="The data path and its peers, in one run.")
    parser.add_argument("--rows", type=int, default=20_000, help="pairs to tokenize")
    parser.add_argument("--repeats", type=int, default=5, help="repeats of each measurement")
    parser.add_argument("--model", default=BUNDLED, help="model whose tokenizer is used")
    add_output_option(parser)
    options = parser.parse_args(argv)
    found = bench_data(options.rows, options.repeats, options.model)
    print_table(found)
    if options.output is not None:
        print(write_record(options.output, "data", **found))
    return 0
