"""Makes the section on the lengths of the examples and what packing saves."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ftsys.data.store.index import StoreIndex
from ftsys.errors import DataError
from ftsys.html_report.facts import RunFacts
from ftsys.html_report.figures.answers import draw_lengths
from ftsys.html_report.groups import TaskGroup
from ftsys.html_report.parts import Figure, Note, Part, Section, cell, table
from ftsys.html_report.statistics import packing
from ftsys.run_folder.report_facts import MOST

_BARS = 40
_DEFAULT_BATCH = 32


def lengths_section(group: TaskGroup, anchor: str) -> Section:
    """Return the histogram of lengths, and the tokens that padded batches would compute, of the first run with them."""
    run = next((one for one in group.runs if lengths_of(one)), None)
    if run is None:
        note = Note("The run folders do not hold the lengths of the examples, and the store is not here.")
        return Section("Lengths and packing", f"{anchor}-lengths", [note])
    lengths = lengths_of(run)
    parts: list[Part] = [_histogram(lengths, anchor), _savings(run, group, lengths)]
    if any(lengths_of(one) != lengths for one in group.runs if lengths_of(one)):
        parts.append(Note(f"The runs have different stores; these are the lengths of {run.name}."))
    return Section("Lengths and packing", f"{anchor}-lengths", parts)


def lengths_of(run: RunFacts) -> Mapping[str, Sequence[int]]:
    """Return the number of examples of each length, by split; from the store for runs without data.json."""
    if run.data is not None:
        return {name: _trimmed(counts) for name, counts in run.data.lengths.items()}
    store = run.results.get("store")
    try:
        splits = StoreIndex.read(Path(str(store))).splits if store else {}
        return {name: _trimmed(split.lengths) for name, split in splits.items()}
    except DataError:
        return {}


def _trimmed(counts: Sequence[int]) -> list[int]:
    """Return the counts up to the longest example."""
    return list(counts[: max((length for length, count in enumerate(counts) if count), default=-1) + 1])


def _histogram(lengths: Mapping[str, Sequence[int]], anchor: str) -> Figure:
    longest = max(len(counts) for counts in lengths.values())
    width = max(1, -(-longest // _BARS))
    edges = np.arange(0, longest + width, width)
    splits = [
        (name, edges.tolist(), _shares(counts, edges).tolist()) for name, counts in lengths.items() if sum(counts)
    ]
    quantiles = [[name, *_quantiles(counts)] for name, counts in lengths.items() if sum(counts)]
    text = "Share of the examples by their number of tokens. " + " ".join(
        f"{name}: median {row[3]}, longest {row[5]}." for name, *row in ([row[0], *row] for row in quantiles)
    )
    data = table("Lengths in tokens", ["split", "examples", "mean", "median", "90% are up to", "longest"], quantiles, 1)
    return Figure(f"{anchor}-lengths", "Lengths of the examples", text, partial(draw_lengths, splits, "tokens"), data)


def _shares(counts: Sequence[int], edges: np.ndarray) -> np.ndarray:
    return np.histogram(np.arange(len(counts)), edges, weights=counts)[0] / max(sum(counts), 1)


def _quantiles(counts: Sequence[int]) -> list[int | float]:
    summed = np.cumsum(counts)
    median, most = (int(np.searchsorted(summed, share * summed[-1])) for share in (0.5, 0.9))
    mean = float(np.dot(counts, np.arange(len(counts))) / summed[-1])
    return [int(summed[-1]), mean, median, most, int(np.flatnonzero(counts)[-1])]


def _savings(run: RunFacts, group: TaskGroup, lengths: Mapping[str, Sequence[int]]) -> Part:
    """Return the tokens of an epoch: the real ones, and those of padded batches of the same size."""
    split = str(group.task.train_split) if group.task.train_split in lengths else next(iter(lengths))
    batch = run.plan.get("rank_examples") or run.results.get("global_batch")
    batch = batch if isinstance(batch, int) and 0 < batch <= MOST else _DEFAULT_BATCH
    maximum = run.run.data.max_length if run.run else len(lengths[split]) - 1
    found = packing(lengths[split], batch, maximum)
    ways: list[tuple[str, float | None]] = [
        ("real tokens", found.real),
        ("computed by this run", _computed(run, found.real)),
        (f"padded to the longest of {batch} random examples (expected)", found.padded_to_longest),
        (f"padded to {maximum} tokens", found.padded_to_maximum),
    ]
    rows = [[way, round(tokens), cell(tokens / max(found.real, 1), 2)] for way, tokens in ways if tokens is not None]
    caption = f"Tokens in an epoch of {split}: {found.examples:,} examples"
    return table(caption, ["way to make batches", "tokens", "of real"], rows, beside=True)


def _computed(run: RunFacts, real: int) -> int | None:
    padding = run.figures("throughput").get("padding_fraction")
    return round(real / (1.0 - padding)) if padding is not None and 0.0 <= padding < 1.0 else None
