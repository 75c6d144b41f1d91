"""Measures how well orders of examples mix a file, over epochs: ours, the stock sampler's, and those of streaming.

The data is the worst case of a file: sorted by label, so that an order which mixes neighbours badly has batches of one
label. No text is read and nothing is trained.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ftsys.bench.harness.measuring import note
from ftsys.bench.harness.output import Findings, bench_parser, conclude, parse
from ftsys.bench.harness.peers import check_peers
from ftsys.bench.mixing.figures import Batches, as_batches, padding, same_companions, spread_of_means
from ftsys.bench.mixing.orders import ORDERS, Lengths
from ftsys.errors import ConfigError

ROWS, QUICK_ROWS, BATCH, EPOCHS = 100_000, 2_000, 32, 5
LABELS = 2


def drawn_lengths(rows: int) -> Lengths:
    """Draw lengths in tokens: log-normal with a median of 40, from 5 to 512, as those of sentence pairs."""
    drawn = np.random.default_rng(0).lognormal(np.log(40), 0.6, rows)
    return np.clip(drawn, 5, 512).astype(np.int64)


def bench_mixing(names: Sequence[str], rows: int, epochs: int) -> Findings:
    """Order `rows` examples for `epochs` epochs in each way; returns medians over epochs."""
    found, lengths = Findings(plots=False), drawn_lengths(rows)
    labels = (np.arange(rows) * LABELS // rows).astype(np.float64)
    title = f"{rows:,} rows sorted by label, batches of {BATCH}: 1 is a plain shuffle"
    found.tables[title] = {}
    for name in names:
        description, order = ORDERS[name]
        try:
            taken = [as_batches(order(lengths, BATCH, 1, epoch), BATCH) for epoch in range(epochs + 1)]
        except ImportError as error:
            found.notes.append(f"{name}: left out, {error}")
            continue
        found.settings[name] = description
        found.tables[title][name] = _row(found, name, labels, lengths, taken)
    found.settings |= {"rows": rows, "batch": BATCH, "epochs": epochs}
    return found


def _row(
    found: Findings, name: str, labels: np.ndarray, lengths: Lengths, taken: Sequence[Batches]
) -> dict[str, float]:
    figures = {
        "labels": [spread_of_means(labels, batches) for batches in taken[1:]],
        "lengths": [spread_of_means(lengths.astype(np.float64), batches) for batches in taken[1:]],
        "companions": [same_companions(before, after, len(labels)) for before, after in pairwise(taken)],
        "padding": [padding(lengths, batches) for batches in taken[1:]],
    }
    return {column: note(found, f"{name}: {column}", values, "ratio") for column, values in figures.items()}


def main(words: Sequence[str]) -> int:
    """Run `ftsys bench mixing`: order, print, write the record."""
    parser = bench_parser("mixing", "Measure how well orders of examples mix a sorted file.", EPOCHS)
    parser.add_argument("--peers", nargs="+", default=list(ORDERS), metavar="PEER", help=f"some of {', '.join(ORDERS)}")
    parser.add_argument("--rows", type=int, help=f"examples (default {ROWS})")
    options = parse(parser, words)
    check_peers(options.peers, list(ORDERS))
    rows = options.rows if options.rows is not None else QUICK_ROWS if options.quick else ROWS
    if rows < 2 * BATCH:
        raise ConfigError(f"--rows {rows} makes no two batches of {BATCH}. Write {2 * BATCH} or more.")
    conclude(options.name, bench_mixing(options.peers, rows, options.repeats), options.output)
    return 0
