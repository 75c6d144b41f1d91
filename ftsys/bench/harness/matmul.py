"""Measures the matrix-product rate in turns with the peers, and states what it leaves possible."""

from collections.abc import Sequence
from statistics import median

from ftsys.bench.harness.measuring import Case, Rounds, note
from ftsys.bench.harness.output import Findings
from ftsys.bench.harness.peers import OURS, Spec, peer_spec
from ftsys.bench.harness.precision import faster_precision

MATMUL = "matmul"
"""Name of the process that multiplies; it is no peer."""


def matmul_spec(case: Case) -> Spec:
    """Return the spec of the process that multiplies matrices in both formats."""
    return peer_spec(MATMUL, OURS, case.folder, case.inputs, case.work)


def note_matmul(found: Findings, about: str, rounds: Rounds) -> float:
    """Add both formats' rates to the record; returns the highest FLOP/s among the samples that count.

    Where peers compute in fp32, samples in bf16 do not count. Each sample may have met a busy moment.
    """
    bf16, fp32 = ([block[key] for block in rounds.blocks[MATMUL]] for key in ("flops", "fp32_flops"))
    note(found, f"{about}: bf16 matrix product", bf16, "FLOP/s", higher_is_better=True)
    note(found, f"{about}: fp32 matrix product", fp32, "FLOP/s", higher_is_better=True)
    samples = fp32 if faster_precision() == "fp32" else bf16 + fp32
    found.settings[f"{about}: matrix-product rate"] = {"FLOP/s": max(samples), "samples": len(samples)}
    return float(max(samples))


def note_bounds(
    found: Findings, title: str, rounds: Rounds, matmul: float, flops_per_token: float, peers: Sequence[str]
) -> None:
    """Add to each of `peers` how many times as fast a program at the whole matrix-product rate would be."""
    bounds = {name: matmul / (flops_per_token * median(rounds.rates(name))) for name in peers}
    found.settings[f"{title}: the whole matrix-product rate over"] = bounds
    for name, bound in bounds.items():
        found.tables[title][name]["bound x"] = bound
