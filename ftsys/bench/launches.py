"""Kernel launches, waits and bytes from the host that one optimizer step asks of a GPU, counted without one.

By count, not by clock: torch's dispatcher sees the operations of a step on a machine without a GPU. An
operation that computes is one launch, so a library call that launches several kernels counts once, for all peers alike.
"""

import argparse
from collections.abc import Sequence
from itertools import product
from typing import Any

from ftsys.bench.harness.output import Cell, Findings, add_output_option, conclude
from ftsys.bench.harness.record import Measurement
from ftsys.console.printer import say
from ftsys.errors import ConfigError

MODELS: dict[str, dict[str, Any]] = {
    "minilm": {"model_type": "bert", "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6},
    "bert-base": {"model_type": "bert"},
    "bert-large": {
        "model_type": "bert", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
        "num_attention_heads": 16,
    },
    "modernbert-base": {"model_type": "modernbert"},
    "deberta-v3-base": {
        "model_type": "deberta-v2", "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "vocab_size": 128_100, "relative_attention": True, "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"], "position_buckets": 256, "norm_rel_ebd": "layer_norm", "type_vocab_size": 0,
        "position_biased_input": False,
    },
}  # fmt: skip
"""Configurations where they are not their class's defaults."""

BATCH = "32 sequences of 53 tokens in the mean, dropout at the model's own rates, clipping, two groups of weight decay"

PRECISIONS = ("bf16", "fp16")
WITH_GRAPHS = "ours with graphs"


def bench_launches(models: Sequence[str], precisions: Sequence[str] = PRECISIONS) -> Findings:
    """Count one step of each peer, for each of `models` in each of `precisions`.

    Raises ConfigError for a model that is not in `MODELS`.
    """
    from ftsys.bench.launch_parts.graph_step import our_step_with_graphs
    from ftsys.bench.launch_parts.steps import PEERS

    ConfigError.raise_if(
        f"--models {name!r} is not a model of this benchmark. Use some of {sorted(MODELS)}."
        for name in models
        if name not in MODELS
    )
    found = Findings(notes=["by count, not by clock: no GPU took part"], settings={"batch": BATCH})
    for model, precision in product(models, precisions):
        name = f"{model} in {precision}"
        say(f"{name}: counting")
        table = found.tables[f"{name}: launches of one optimizer step"] = {}
        for peer, count in PEERS.items():
            table[peer] = _row(found, f"{name}, {peer}", count(MODELS[model], precision))
        if precision == "bf16":  # fp16 scales each loss by another factor, which a graph cannot
            table[WITH_GRAPHS] = _row(found, f"{name}, {WITH_GRAPHS}", our_step_with_graphs(MODELS[model]))
        for peer in [peer for peer in PEERS if peer != "ours"]:
            found.ratios[f"{name}: launches of ours / {peer}"] = table["ours"]["launches"] / table[peer]["launches"]
    return found


def _row(found: Findings, name: str, step: Any) -> dict[str, Cell]:
    row: dict[str, Cell] = {"launches": sum(phase.launches for phase in step.values())}
    row |= {phase: counts.launches for phase, counts in step.items()}
    row["waits"] = sum(phase.waits for phase in step.values())
    row["host bytes"] = sum(phase.host_bytes for phase in step.values())
    for column, count in row.items():
        found.measurements[f"{name}: {column}"] = Measurement.of([count], column.partition(" ")[2] or "count")
    return row


def main(words: Sequence[str]) -> int:
    """`ftsys bench launches`: count, print, record, plot."""
    parser = argparse.ArgumentParser(prog="ftsys bench launches", description=__doc__, allow_abbrev=False)
    parser.add_argument("--models", nargs="+", default=list(MODELS), metavar="MODEL", help=", ".join(MODELS))
    parser.add_argument(
        "--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS, help="the precisions to count each model in"
    )
    parser.add_argument("--name", default="launches", help="the record's name")
    add_output_option(parser)
    options = parser.parse_args(words)
    conclude(options.name, bench_launches(options.models, options.precisions), options.output)
    return 0
