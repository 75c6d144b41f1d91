"""Measures whole optimizer steps of ours and of its peers, interleaved: data, forward, backward, clipping, update.

All peers train with dropout. Useful FLOP/s = 6 x parameters outside the embeddings x real tokens per second; padding
does not count.
"""

from collections.abc import Sequence
from dataclasses import replace

from ftsys.bench.harness.matmul import MATMUL, matmul_spec, note_bounds, note_matmul
from ftsys.bench.harness.measuring import Case, Rounds, describe, each_case, measure, note, note_ratios
from ftsys.bench.harness.output import Cell, Findings, bench_parser, conclude, parse
from ftsys.bench.harness.peers import OURS, PEERS, check_peers, installed, peer_spec
from ftsys.bench.harness.precision import add_precision_option, use_precision
from ftsys.errors import ConfigError

STEP_PEERS = (OURS, "ours-8", "ours-grouped", "course", "best", "accelerate", "cross-encoder")
ON_GPU = ("ours-graphs",)
"""Peers that need a GPU; measured only where `--peers` names them."""
MODELS = ("minilm", "bert-base")
RATIOS = {OURS: STEP_PEERS[1:], "ours-8": ("course",), "ours-graphs": (OURS, "best")}
"""Peer -> peers that its speed is divided by in the record's ratios."""


def bench_step(
    models: Sequence[str] = MODELS,
    peers: Sequence[str] = STEP_PEERS,
    repeats: int = 7,
    steps: int = 4,
    rows: int | None = None,
    batch: int | None = None,
    tokens: int | None = None,
) -> Findings:
    """Measure `repeats` blocks of each peer, one per round; a block is `steps` optimizer steps.

    `rows` pairs of the training split are used (None: all). A step has `batch` examples in place of each peer's own
    number, or for ours at most `tokens` real tokens. Raises ConfigError for `tokens` with a peer that counts examples.
    """
    check_peers(peers, (*STEP_PEERS, *ON_GPU))
    if tokens is not None:
        ConfigError.raise_if(_no_tokens(name) for name in peers if PEERS[name].how != "ours")
    here, absent = installed(peers)
    sizes = {"steps of a block": steps, "repeats": repeats, "warm_up": 1, "batch": tokens or batch or "each peer's own"}
    found = Findings(notes=absent, settings={**sizes, "left out": absent})
    for case in each_case(models, rows):
        specs = {
            name: replace(
                peer_spec("step", name, case.folder, case.inputs, case.work), steps=steps, batch=batch, tokens=tokens
            )
            for name in here
        }
        specs[MATMUL] = matmul_spec(case)
        note_steps(found, case, measure(case, specs, repeats))
    return found


def _no_tokens(peer: str) -> str:
    return f"--tokens: peer {peer!r} counts a step in examples. Leave it out with --peers, or use --batch."


def note_steps(found: Findings, case: Case, rounds: Rounds) -> None:
    """Turn the measured blocks into measurements, ratios and the model's table."""
    title = f"{case.name}: optimizer steps"
    matmul = note_matmul(found, case.name, rounds)
    peers = [name for name in rounds.blocks if name != MATMUL]
    found.tables[title] = {name: _row(found, case.name, name, rounds, matmul) for name in peers}
    for one, others in RATIOS.items():
        note_ratios(found, title, rounds, one, others)
    flops_per_token = 6.0 * rounds.ready[peers[0]]["parameters"]
    note_bounds(found, title, rounds, matmul, flops_per_token, peers)
    describe(found, case, rounds, "steps")


def _row(found: Findings, model: str, peer: str, rounds: Rounds, matmul: float) -> dict[str, Cell]:
    name, flops_per_token = f"{model}, {peer}", 6.0 * rounds.ready[peer]["parameters"]
    tokens = note(found, f"{name}: real tokens", rounds.rates(peer), "tokens/s", higher_is_better=True)
    samples = note(found, f"{name}: samples", rounds.rates(peer, "examples"), "samples/s", higher_is_better=True)
    note(found, f"{name}: step", [block["seconds"] / block["steps"] for block in rounds.blocks[peer]], "s")
    useful = [rate * flops_per_token / 1e12 for rate in rounds.rates(peer)]
    tera = note(found, f"{name}: useful", useful, "TFLOP/s", higher_is_better=True)
    memory = note(found, f"{name}: peak memory", [float(rounds.memory(peer))], "bytes")
    row: dict[str, Cell] = {"1000 tokens/s": tokens / 1e3, "samples/s": samples, "useful TFLOP/s": tera}
    row |= _share(found, name, [rate * flops_per_token for rate in rounds.rates(peer)], matmul)
    return row | {"peak GB": memory / 1e9}


def _share(found: Findings, name: str, flops: list[float], matmul: float) -> dict[str, Cell]:
    """Return the share of the matrix-product rate, with a measurement for it; none where a round is above 1."""
    if max(flops) > matmul:
        found.notes.append(f"{name}: no share of the matrix-product rate, which was measured in busy moments only")
        return {}
    shares = [rate / matmul for rate in flops]
    return {"of matmul": note(found, f"{name}: of matmul", shares, "share", higher_is_better=True)}


def main(words: Sequence[str]) -> int:
    """Run `ftsys bench step`: measure, print, write record and plot."""
    parser = bench_parser("step", "Measure whole optimizer steps of ftsys and of its peers in one run.", 7, MODELS)
    peers = f"some of {', '.join((*STEP_PEERS, *ON_GPU))} (default: all but {', '.join(ON_GPU)}, which needs a GPU)"
    parser.add_argument("--peers", nargs="+", default=list(STEP_PEERS), metavar="PEER", help=peers)
    parser.add_argument("--steps", type=int, default=4, help="optimizer steps per block (default 4)")
    parser.add_argument("--batch", type=int, help="examples per step, in place of each peer's own number")
    parser.add_argument("--tokens", type=int, help="largest number of real tokens per step; only for ours")
    add_precision_option(parser)
    options = parse(parser, words)
    use_precision(options.precision)
    rows, steps = (64, 1) if options.quick else (None, options.steps)
    found = bench_step(options.models, options.peers, options.repeats, steps, rows, options.batch, options.tokens)
    conclude(options.name, found, options.output)
    return 0
