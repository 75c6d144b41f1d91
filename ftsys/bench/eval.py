"""Measures predictions of a validation split and of a longer split: ours and the stock Trainer, interleaved."""

from collections.abc import Sequence
from dataclasses import replace

from ftsys.bench.harness.matmul import MATMUL, matmul_spec, note_bounds, note_matmul
from ftsys.bench.harness.measuring import Case, Rounds, describe, each_case, measure, note, note_ratios
from ftsys.bench.harness.output import Cell, Findings, bench_parser, conclude, parse
from ftsys.bench.harness.peers import OURS, check_peers, peer_spec
from ftsys.bench.harness.precision import add_precision_option, use_precision

EVAL_PEERS = (OURS, "course", "best", "bf16-weights")
MODELS = ("minilm",)
SPLITS = ("validation", "train")
"""The training split serves as a longer set: it is predicted, nothing is trained."""


def bench_eval(
    models: Sequence[str] = MODELS,
    peers: Sequence[str] = EVAL_PEERS,
    repeats: int = 5,
    rows: int | None = None,
    splits: Sequence[str] = SPLITS,
) -> Findings:
    """Measure `repeats` predictions of each split by each peer."""
    check_peers(peers, EVAL_PEERS)
    found = Findings(settings={"repeats": repeats, "warm_up": 1})
    for case in each_case(models, rows):
        for split in splits:
            specs = {
                name: replace(peer_spec("eval", name, case.folder, case.inputs, case.work), split=split)
                for name in peers
            }
            specs[MATMUL] = matmul_spec(case)
            note_predictions(found, case, split, measure(case, specs, repeats))
    return found


def note_predictions(found: Findings, case: Case, split: str, rounds: Rounds) -> None:
    """Turn the measured blocks into measurements, ratios and the split's table."""
    title, peers = f"{case.name}: prediction of {case.inputs.rows[split]:,} rows", [*rounds.blocks]
    peers.remove(MATMUL)
    found.tables[title] = {name: _row(found, title, name, rounds) for name in peers}
    note_ratios(found, title, rounds, OURS, peers)
    flops_per_token = 2.0 * rounds.ready[peers[0]]["parameters"]
    note_bounds(found, title, rounds, note_matmul(found, title, rounds), flops_per_token, peers)
    describe(found, case, rounds, f"predictions of {split}")


def _row(found: Findings, title: str, peer: str, rounds: Rounds) -> dict[str, Cell]:
    rows = note(found, f"{title}, {peer}: rows", rounds.rates(peer, "examples"), "rows/s", higher_is_better=True)
    seconds = note(found, f"{title}, {peer}: time", rounds.seconds(peer), "s")
    memory = note(found, f"{title}, {peer}: peak memory", [float(rounds.memory(peer))], "bytes")
    return {"rows/s": rows, "seconds": seconds, "peak GB": memory / 1e9}


def main(words: Sequence[str]) -> int:
    """Run `ftsys bench eval`: measure, print, write record and plot."""
    parser = bench_parser("eval", "Measure predictions of ftsys and of the stock Trainer in one run.", 5, MODELS)
    parser.add_argument(
        "--peers",
        nargs="+",
        default=list(EVAL_PEERS),
        metavar="PEER",
        help=f"some of {', '.join(EVAL_PEERS)} (default: all)",
    )
    add_precision_option(parser)
    options = parse(parser, words)
    use_precision(options.precision)
    found = bench_eval(options.models, options.peers, options.repeats, 64 if options.quick else None)
    conclude(options.name, found, options.output)
    return 0
