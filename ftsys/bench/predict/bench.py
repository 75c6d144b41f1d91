"""Measures rows scored a second, in one process and in turns: ours and the stock ways, in float32 and bfloat16."""

import gc
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ftsys.bench.harness.models import MINILM, model_folders
from ftsys.bench.harness.output import Findings, bench_parser, conclude, parse
from ftsys.bench.harness.peers import check_peers
from ftsys.bench.harness.record import Measurement, interleaved
from ftsys.bench.predict.rows import DESCRIPTIONS, SHAPES, Row, make_rows
from ftsys.console.printer import say
from ftsys.model_files.folder import TOKENIZER_FILES
from ftsys.report.log_filters import quiet_libraries

MODELS = ("minilm",)
PRECISIONS = ("fp32", "bf16")
PEERS = ("ours", "pipeline", "cross-encoder", "trainer")
SPECIAL, LONGEST = 3, 512
"""Special tokens of a pair, and tokens to which the models cut a pair."""
MATMUL = "matrix product"
MOST_DIFFERENT = {"fp32": 1e-4, "bf16": 5e-2}
"""The largest difference of a score from ours in float32; a larger one means that a peer computed something else."""


def bench_predict(
    models: Sequence[str], peers: Sequence[str], shapes: Sequence[str], repeats: int, scale: float, threads: int
) -> Findings:
    """Measure `repeats` blocks of each peer for each shape; a block scores SHAPES[shape] * scale rows."""
    import torch

    check_peers(peers, PEERS)
    torch.set_num_threads(threads)
    found = Findings(settings={"repeats": repeats, "warm_up": 1, "threads": threads, "shapes": DESCRIPTIONS})
    with tempfile.TemporaryDirectory(prefix="ftsys-bench-") as scratch:
        for name, encoder in model_folders(models, Path(scratch)).items():
            folder = classifier_of(name, encoder, Path(scratch) / f"{name}-classifier")
            for shape in shapes:
                rows = make_rows(shape, max(16, int(SHAPES[shape] * scale)), _counter(folder))
                seconds, facts = _measure(folder, rows, peers, repeats)
                facts |= {"operations of a row": operations_of_a_row(folder, rows)}
                note_shape(found, f"{name}, {shape}", seconds, facts, rows)
                gc.collect()
    return found


def operations_of_a_row(folder: Path, rows: Sequence[Row]) -> float:
    """Return 2 x parameters outside the embeddings x real tokens of a row, a mean over the rows.

    Every layer counts whole for every peer, though ours leaves out a part of the last one.
    """
    from transformers import AutoModelForSequenceClassification

    from ftsys.train.trainer.training_step import parameters_outside_embeddings

    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=False)
    count = _counter(folder)
    tokens = [min(count(first) + count(second) + SPECIAL, LONGEST) for first, second in rows]
    return 2.0 * parameters_outside_embeddings(model) * sum(tokens) / len(rows)


def classifier_of(name: str, encoder: Path, folder: Path) -> Path:
    """Save the bundled encoder with a head of seed 0; other models have a head."""
    if name != MINILM:
        return encoder
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        encoder, num_labels=2, dtype=torch.float32, trust_remote_code=False
    )
    model.save_pretrained(folder)
    for file in TOKENIZER_FILES:
        if (encoder / file).is_file():
            shutil.copy(encoder / file, folder)
    return folder


def _counter(folder: Path) -> Callable[[str], int]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _measure(
    folder: Path, rows: Sequence[Row], peers: Sequence[str], repeats: int
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Return the seconds of each block by peer and precision, and facts of the peers. Raises RuntimeError.

    Between the blocks the machine's rate of matrix products is sampled; the best sample of a precision counts.
    """
    from ftsys.bench.predict.peers import missing, scorer
    from ftsys.bench.predict.rates import fastest_products

    works: dict[str, Callable[[], Any]] = {}
    facts: dict[str, Any] = {"left out": [line for line in map(missing, peers) if line], "rows of a batch": {}}
    expected = scorer("ours", folder, "fp32", rows)[0](rows[:64])
    for peer in (peer for peer in peers if missing(peer) is None):
        for precision in PRECISIONS:
            score, batch = scorer(peer, folder, precision, rows)
            far = float(np.abs(score(rows[:64]) - expected).max())
            say(f"{peer}, {precision}: rows of a batch {batch}, scores differ by {far:.1e} at most")
            if far > MOST_DIFFERENT[precision]:
                raise RuntimeError(f"{peer} in {precision} gives other scores than ours: they differ by {far}")
            works[f"{peer}, {precision}"] = partial(score, rows)
            facts["rows of a batch"][f"{peer}, {precision}"] = batch
    rates: list[dict[str, float]] = []
    works[MATMUL] = lambda: rates.append(fastest_products())
    seconds = interleaved(works, repeats)
    del seconds[MATMUL]
    facts[MATMUL] = {kind: max(rate[kind] for rate in rates) for kind in PRECISIONS}
    return seconds, facts


def note_shape(
    found: Findings, title: str, seconds: dict[str, list[float]], facts: dict[str, Any], rows: Sequence[Row]
) -> None:
    """Add the rates of one shape, and ours over the best other peer of each precision, to the record."""
    table = found.tables.setdefault(title, {})
    rates = {name: [len(rows) / taken for taken in times] for name, times in seconds.items()}
    for name, values in rates.items():
        found.measurements[f"{title}: {name}"] = Measurement.of(values, "rows/s", higher_is_better=True)
        table[name] = {"rows/s": found.measurements[f"{title}: {name}"].median}
        table[name] |= _share(found, f"{title}: {name}", values, facts)
    for precision in PRECISIONS:
        own = rates.get(f"ours, {precision}", [])
        others = [name for name in rates if name.endswith(precision) and not name.startswith("ours")]
        for other in others if own else ():
            ratio = found.ratio(f"{title}: ours / {other}", [a / b for a, b in zip(own, rates[other], strict=True)])
            table[other]["ours is x"] = ratio.median
    found.settings[title] = {"rows": len(rows), **facts}
    found.notes += [line for line in facts["left out"] if line not in found.notes]


def _share(found: Findings, name: str, rates: Sequence[float], facts: dict[str, Any]) -> dict[str, float]:
    """Return the share of the matrix-product rate; nothing where a round is above 1."""
    shares = [rate * facts["operations of a row"] / facts[MATMUL][name[-4:]] for rate in rates]
    if max(shares) > 1:
        found.notes.append(f"{name}: no share of the matrix-product rate: more than all of it")
        return {}
    found.measurements[f"{name}, of matmul"] = Measurement.of(shares, "share", higher_is_better=True)
    return {"of matmul": found.measurements[f"{name}, of matmul"].median}


def main(words: Sequence[str]) -> int:
    """Run `ftsys bench predict`: measure, print, write record and plot."""
    parser = bench_parser("predict", "Measure rows scored a second by ftsys and by its peers in one run.", 3, MODELS)
    add = parser.add_argument
    add("--peers", nargs="+", default=list(PEERS), metavar="PEER", help=f"some of {', '.join(PEERS)} (default: all)")
    add("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES), help="shapes of the rows (default: all)")
    add("--scale", type=float, default=1.0, help="factor of the rows in a block (default 1)")
    add("--threads", type=int, default=2, help="torch's threads (default 2)")
    options = parse(parser, words)
    quiet_libraries()
    scale = 0.02 if options.quick else options.scale
    found = bench_predict(options.models, options.peers, options.shapes, options.repeats, scale, options.threads)
    conclude(options.name, found, options.output)
    return 0
