"""Measures whole short trainings with an evaluation after each epoch: ours and the stock Trainer, interleaved."""

from collections.abc import Sequence
from dataclasses import replace

from ftsys.bench.harness.measuring import Case, Rounds, describe, each_case, measure, note, note_ratios
from ftsys.bench.harness.output import Cell, Findings, bench_parser, conclude, parse
from ftsys.bench.harness.peers import OURS, check_peers, peer_spec
from ftsys.bench.harness.precision import add_precision_option, use_precision

TRAIN_PEERS = (OURS, "course", "best")
MODELS = ("minilm",)
ROWS, EPOCHS = 640, 2


def bench_train(
    models: Sequence[str] = MODELS,
    peers: Sequence[str] = TRAIN_PEERS,
    repeats: int = 3,
    rows: int | None = ROWS,
    epochs: int = EPOCHS,
    evaluates: bool = True,
    batch: int | None = None,
) -> Findings:
    """Measure `repeats` calls of `train()` of each peer on `rows` pairs for `epochs` epochs.

    `batch` is the examples per step, in place of each peer's own number. The first training of each is a warm-up.
    """
    check_peers(peers, TRAIN_PEERS)
    found = Findings(settings={"epochs": epochs, "evaluates": evaluates, "repeats": repeats, "warm_up": 1})
    for case in each_case(models, rows):
        specs = {}
        for name in peers:
            spec = peer_spec("train", name, case.folder, case.inputs, case.work)
            specs[name] = replace(spec, epochs=epochs, evaluates=evaluates, batch=batch)
        note_trainings(found, case, measure(case, specs, repeats))
    return found


def note_trainings(found: Findings, case: Case, rounds: Rounds) -> None:
    """Turn the measured blocks into measurements, ratios and the model's table."""
    title = f"{case.name}: training of {rounds.blocks[next(iter(rounds.blocks))][0]['examples']:,} examples"
    found.tables[title] = {name: _row(found, case.name, name, rounds) for name in rounds.blocks}
    note_ratios(found, title, rounds, OURS, list(rounds.blocks))
    describe(found, case, rounds, "trainings")


def _row(found: Findings, model: str, peer: str, rounds: Rounds) -> dict[str, Cell]:
    last = rounds.blocks[peer][-1]
    seconds = note(found, f"{model}, {peer}: training", rounds.seconds(peer), "s")
    memory = note(found, f"{model}, {peer}: peak memory", [float(rounds.memory(peer))], "bytes")
    row: dict[str, Cell] = {"training s": seconds, "peak GB": memory / 1e9}
    return row | ({"eval loss": last["eval_loss"]} if "eval_loss" in last else {})


def main(words: Sequence[str]) -> int:
    """Run `ftsys bench train`: measure, print, write record and plot."""
    parser = bench_parser(
        "train", "Measure whole short trainings of ftsys and of the stock Trainer in one run.", 3, MODELS
    )
    parser.add_argument(
        "--peers",
        nargs="+",
        default=list(TRAIN_PEERS),
        metavar="PEER",
        help=f"some of {', '.join(TRAIN_PEERS)} (default: all)",
    )
    parser.add_argument("--rows", type=int, default=ROWS, help=f"training pairs (default {ROWS})")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"epochs of a training (default {EPOCHS})")
    parser.add_argument("--batch", type=int, help="examples per step, in place of each peer's own number")
    parser.add_argument("--no-eval", action="store_true", help="train without evaluations")
    add_precision_option(parser)
    options = parse(parser, words)
    use_precision(options.precision)
    rows, evaluates = 64 if options.quick else options.rows, not options.no_eval
    chosen = (options.models, options.peers, options.repeats, rows, options.epochs)
    found = bench_train(*chosen, evaluates=evaluates, batch=options.batch)
    conclude(options.name, found, options.output)
    return 0
