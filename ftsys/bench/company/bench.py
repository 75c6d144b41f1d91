"""Measures a training alone, two at once on the same cores, and one beside a busy loop: ours and the stock Trainer.

All of them take turns, and each figure is divided by the same trainer's alone in the same round. "others" in the
record says how many CPUs were kept busy meanwhile by processes that are not part of the benchmark.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ftsys.bench.company.together import Together
from ftsys.bench.harness.measuring import Case, each_case, note
from ftsys.bench.harness.output import Findings, bench_parser, conclude, parse
from ftsys.bench.harness.peers import OURS, PEERS, check_peers, peer_spec
from ftsys.bench.harness.precision import add_precision_option, use_precision
from ftsys.bench.harness.record import Measurement
from ftsys.bench.harness.rounds import Blocks, Crew, Figures, in_turns
from ftsys.console.printer import say
from ftsys.cpus.openmp import SPIN
from ftsys.errors import ConfigError

COMPANY_PEERS = (OURS, "course", "best")
MODELS = ("minilm",)
ALONE, PAIR, LOOP = "alone", "pair", "beside a busy loop"
SECONDS = 8.0
Rounds = Mapping[str, Sequence[Figures]]


def bench_company(
    models: Sequence[str] = MODELS,
    peers: Sequence[str] = COMPANY_PEERS,
    repeats: int = 5,
    seconds: float = SECONDS,
    rows: int | None = None,
    spins: Sequence[int] = (),
    cpus: Sequence[int] | None = None,
) -> Findings:
    """Measure `repeats` blocks of `seconds` of each peer alone, as a pair, and beside a busy loop.

    `spins`: values of GOMP_SPINCOUNT, with each of which ours is measured too. `cpus`: the CPUs of all trainings and of
    the loop; None: all that this process may use. Raises ConfigError for a peer that the benchmark does not have.
    """
    check_peers(peers, COMPANY_PEERS)
    cpus = sorted(os.sched_getaffinity(0)) if cpus is None else cpus
    sides: dict[str, tuple[str, dict[str, str]]] = {name: (name, {}) for name in peers}
    sides |= {f"{OURS}, {SPIN}={count}": (OURS, {SPIN: str(count)}) for count in spins}
    sizes = {"seconds of a block": seconds, "repeats": repeats, "warm_up": 1, "cpus": len(cpus)}
    found = Findings(settings={**sizes, "peers": {name: PEERS[name].description_here for name in peers}})
    for case in each_case(models, rows):
        with Crew(case.work) as crew:
            groups: dict[str, Blocks] = {}
            for name, (peer, variables) in sides.items():
                groups |= start_side(crew, case, name, peer, variables, seconds, cpus)
            rounds = in_turns(groups, repeats, tell=say)
        note_company(found, case, list(sides), rounds)
    return found


def start_side(
    crew: Crew, case: Case, name: str, peer: str, variables: Mapping[str, str], seconds: float, cpus: Sequence[int]
) -> dict[str, Together]:
    """Start two trainings of a peer; returns its groups by name. Each waits, without using a CPU, for its blocks."""
    spec = replace(peer_spec("step", peer, case.folder, case.inputs, case.work), steps=1, seconds=seconds)
    workers = []
    for index in range(2):
        label = f"{name}-{index}"
        own = replace(spec, work=str(case.work / label), cpus=tuple(cpus))
        workers.append(crew.add(label, own.to_json(), variables))
        workers[-1].wait_until_ready()  # one after the other: all of them at once would need more memory
    return {
        f"{name}, {ALONE}": Together(workers[:1]),
        f"{name}, {PAIR}": Together(workers),
        f"{name}, {LOOP}": Together(workers[:1], loop_on=cpus),
    }


def note_company(found: Findings, case: Case, sides: Sequence[str], rounds: Rounds) -> None:
    """Turn the measured blocks into measurements, ratios and the model's table."""
    title = f"{case.name}: training in company"
    table = found.tables[title] = {}
    for side in sides:
        alone = rates(rounds[f"{side}, {ALONE}"])
        for name in (f"{side}, {how}" for how in (ALONE, PAIR, LOOP)):
            values, blocks = rates(rounds[name]), rounds[name]
            tokens = note(found, f"{case.name}, {name}: real tokens", values, "tokens/s", higher_is_better=True)
            ratio = found.ratio(f"{case.name}: {name} / {ALONE}", over(values, alone))
            table[name] = {
                "1000 tokens/s": tokens / 1e3,
                "of alone": ratio.median,
                "+-": ratio.spread,
                "tokens/CPU s": _efficiency(found, f"{case.name}, {name}", blocks),
                "CPUs": _median(blocks, "cpus"),
                "others' CPUs": _median(blocks, "others"),
            }
    for side in sides[1:]:
        for how in (ALONE, PAIR, LOOP):
            own, other = (rates(rounds[f"{name}, {how}"]) for name in (sides[0], side))
            found.ratio(f"{case.name}, {how}: {sides[0]} / {side}", over(own, other))
    data = {"text": case.inputs.text, "pairs": case.inputs.rows, "real_tokens": case.inputs.tokens}
    found.settings[title] = {**data, "blocks": {name: list(blocks) for name, blocks in rounds.items()}}


def rates(blocks: Sequence[Figures]) -> list[float]:
    """Return the real tokens per second of all trainings of a block together, for each round."""
    return [float(block["rate"]) for block in blocks]


def over(one: Sequence[float], other: Sequence[float]) -> list[float]:
    """Return the ratio of two rates, for each round."""
    return [own / theirs for own, theirs in zip(one, other, strict=True)]


def _efficiency(found: Findings, name: str, blocks: Sequence[Figures]) -> float:
    """Note the real tokens per second of CPU time: what spinning costs shows here on a busy machine too."""
    values = [block["rate"] / block["cpus"] for block in blocks]
    return note(found, f"{name}: real tokens per CPU second", values, "tokens/s", higher_is_better=True)


def _median(blocks: Sequence[Figures], what: str) -> float:
    return Measurement.of([float(block[what]) for block in blocks], "CPUs").median


def main(words: Sequence[str]) -> int:
    """Run `ftsys bench company`: measure, print, write record and plot."""
    parser = bench_parser("company", "Measure trainings that share their cores, against one alone.", 5, MODELS)
    add = parser.add_argument
    known = f"some of {', '.join(COMPANY_PEERS)} (default: all)"
    add("--peers", nargs="+", default=list(COMPANY_PEERS), metavar="PEER", help=known)
    add("--seconds", type=float, default=SECONDS, help=f"seconds of a block (default {SECONDS:g})")
    add("--spins", nargs="+", type=int, default=[], metavar="N", help=f"measure ours with each value of {SPIN} too")
    add("--cpus", type=int, metavar="N", help="bind all of it to the first N CPUs (default: all CPUs)")
    add_precision_option(parser)
    options = parse(parser, words)
    use_precision(options.precision)
    usable = sorted(os.sched_getaffinity(0))
    if options.cpus is not None and not 1 <= options.cpus <= len(usable):
        raise ConfigError(f"--cpus {options.cpus} is not possible: this process may use {len(usable)} CPUs.")
    seconds, rows = (0.2, 64) if options.quick else (options.seconds, None)
    chosen = (options.models, options.peers, options.repeats, seconds, rows, options.spins, usable[: options.cpus])
    conclude(options.name, bench_company(*chosen), options.output)
    return 0
