"""Measures the data path and its peers: preparing a store, assembling a batch, opening a store.

Peers: the batch calls of the `tokenizers` library, `datasets.map`, and `Dataset.__getitems__` with
`DataCollatorWithPadding`. The text is MRPC where FTSYS_GLUE_DIR names a folder of GLUE's files, else the synthetic
sample, repeated.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ftsys.bench.harness.inputs import MAX_LENGTH, Pairs, Split, read_pairs
from ftsys.bench.harness.output import add_output_option
from ftsys.bench.harness.record import Measurement, interleaved, write_record
from ftsys.console.child_python import python_command
from ftsys.console.printer import show
from ftsys.data.build_store import StoreRequest, write_store
from ftsys.data.store.index import BatchTable, SplitIndex, StoreIndex, TokenizerFacts
from ftsys.data.store.reader import Store
from ftsys.data.tokenize.tokenizer import load_tokenizer
from ftsys.model_files.folder import BUNDLED, check_model_folder

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


def train_pairs(rows: int) -> Pairs:
    """Read the training split alone, cut or repeated to `rows` pairs."""
    pairs = read_pairs(rows)
    return Pairs(pairs.task, pairs.text, {"train": pairs.of["train"]})


def bench_data(rows: int = 20_000, repeats: int = 5, model: str = BUNDLED) -> dict[str, Any]:
    """Measure preparing, batches and opening; returns {"measurements": ..., "ratios": ..., "settings": ...}.

    Rates are pairs per second; a batch and an opening are in seconds, memory in bytes.
    """
    pairs, folder = train_pairs(rows), check_model_folder(model)
    with tempfile.TemporaryDirectory(prefix="ftsys-bench-") as work:
        request = StoreRequest(pairs, pairs.task, folder, MAX_LENGTH, Path(work))
        mapped = _mapper(request, pairs.of["train"])
        measurements = {
            **_measure_prepare(request, pairs.of["train"], mapped, repeats),
            **_measure_batch(Store.open(_make_store(request, "kept")), mapped(None), folder, repeats),
            **_measure_opening(Path(work) / "sparse", repeats),
        }
    return {
        "measurements": measurements,
        "ratios": _ratios(measurements),
        "settings": {
            "pairs": rows,
            "text": pairs.text,
            "model": model,
            "max_length": MAX_LENGTH,
            "batch": BATCH,
            "repeats": repeats,
            "warm_up": 1,
        },
    }


def _ratios(found: Mapping[str, Measurement]) -> dict[str, float]:
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
    """Write a new store, even where the same one exists already."""
    tokenizer = load_tokenizer(request.model_folder, request.max_length)
    return write_store(request, f"{name:0<16}", tokenizer, uuid.uuid4().hex, lambda *_: None)


def _measure_prepare(
    request: StoreRequest, split: Split, mapped: Callable[[int | None], object], repeats: int
) -> dict[str, Measurement]:
    """Measure the rates of preparing a store and of its peers, in pairs per second."""
    ours, library = load_tokenizer(request.model_folder, request.max_length), _library_tokenizer(request)
    pairs = list(zip(split.first, split.second, strict=True))

    def prepared() -> None:
        shutil.rmtree(write_store(request, uuid.uuid4().hex, ours, uuid.uuid4().hex, lambda *_: None))

    works: dict[str, Callable[[], object]] = {
        "prepare": prepared,
        "tokenizers encode_batch": lambda: library.encode_batch(pairs),
        "tokenizers encode_batch_fast": lambda: library.encode_batch_fast(pairs),
        "datasets.map 1": lambda: mapped(None),
        "datasets.map 2": lambda: mapped(2),
    }
    return {
        name: Measurement.of([len(pairs) / taken for taken in times], "pairs/s", higher_is_better=True)
        for name, times in interleaved(works, repeats).items()
    }


def _library_tokenizer(request: StoreRequest) -> Any:
    """Return the tokenizer of the `tokenizers` library, truncating and without padding."""
    from tokenizers import Tokenizer

    library = Tokenizer.from_file(str(request.model_folder / "tokenizer.json"))
    library.no_padding()
    library.enable_truncation(request.max_length)
    return library


def _mapper(request: StoreRequest, split: Split) -> Callable[[int | None], Any]:
    """Return a function that tokenizes the pairs with `datasets.map` in a number of processes, into a new Dataset."""
    from datasets import Dataset, disable_progress_bars
    from transformers import AutoTokenizer

    disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(request.model_folder, trust_remote_code=False)
    raw = Dataset.from_dict({"first": split.first, "second": split.second, "labels": split.labels.tolist()})

    def tokenize(batch: dict[str, list[str]]) -> Any:
        return tokenizer(batch["first"], batch["second"], truncation=True, max_length=MAX_LENGTH)

    def mapped(processes: int | None) -> Any:
        file = str(request.root / f"map-{processes}-{uuid.uuid4().hex}.arrow")
        return raw.map(
            tokenize, batched=True, num_proc=processes, cache_file_name=file, remove_columns=["first", "second"]
        )

    return mapped


def _measure_batch(store: Store, mapped: Any, folder: Path, repeats: int) -> dict[str, Measurement]:
    """Measure the seconds from row numbers to tensors: packed from the store, padded from `datasets`, the same rows."""
    from transformers import AutoTokenizer, DataCollatorWithPadding

    from ftsys.data.batching.collate import pack

    split = store.splits["train"]
    collate = DataCollatorWithPadding(AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
    draws = np.random.default_rng(0).integers(0, split.rows, (CALLS, BATCH))
    lists = draws.tolist()

    def packed() -> None:
        for rows in draws:
            pack(split.gather(rows), True)

    def padded() -> None:
        for rows in lists:
            collate(mapped.__getitems__(rows))

    # Timed in loops, as a loader runs them: a single call right after a peer took up to seven times as long.
    works: dict[str, Callable[[], object]] = {"packed batch of 32": packed, "padded batch of 32, datasets": padded}
    times = interleaved(works, 5 * repeats)
    return {name: Measurement.of([taken / CALLS for taken in each], "s") for name, each in times.items()}


def _measure_opening(folder: Path, repeats: int) -> dict[str, Measurement]:
    """Measure the seconds and bytes of opening 100 million rows in a process that has imported the store's module."""
    sparse_store(folder, 100_000_000)
    command = python_command("-c", _OPEN, str(folder))
    found = [json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout) for _ in range(repeats)]
    return {
        "open 100 million rows": Measurement.of([taken for taken, _, _ in found], "s"),
        "open 100 million rows, memory": Measurement.of([float(grown) for _, grown, _ in found], "bytes"),
    }


def sparse_store(folder: Path, rows: int, tokens_per_row: int = 53, rows_per_batch: int = 1 << 16) -> None:
    """Write a store whose Arrow file is sparse: a hole of the right size, in which every number reads as zero."""
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
    """Print measurements and ratios as two tables."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"data path, {found['settings']['pairs']} pairs of {found['settings']['text']}")
    for heading in ("measured", "median", "spread", "unit"):
        table.add_column(heading, justify="left" if heading in ("measured", "unit") else "right")
    for name, value in found["measurements"].items():
        table.add_row(name, f"{value.median:.6g}", f"{value.spread:.2g}", value.unit)
    ratios = Table("ratio", "value")
    for name, ratio in found["ratios"].items():
        ratios.add_row(name, f"{ratio:.2f}")
    console = Console()
    console.print(table)
    console.print(ratios)


def main(argv: Sequence[str]) -> int:
    """Run `ftsys bench data`: measure, print, and write a record into the folder of `--output`."""
    parser = argparse.ArgumentParser(
        prog="ftsys bench data", description="Measure the data path and its peers in one run."
    )
    parser.add_argument("--rows", type=int, default=20_000, help="pairs to tokenize (default 20000)")
    parser.add_argument("--repeats", type=int, default=5, help="measured repeats (default 5)")
    parser.add_argument("--model", default=BUNDLED, help="model whose tokenizer is used")
    add_output_option(parser)
    options = parser.parse_args(argv)
    found = bench_data(options.rows, options.repeats, options.model)
    print_table(found)
    if options.output is not None:
        show(str(write_record(options.output, "data", **found)))
    return 0
