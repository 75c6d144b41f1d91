"""Several gloo ranks on fixed cores of this machine, in turns; and the balance of up to 4,096 ranks, simulated."""

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ftsys.bench.harness.measuring import Case, Rounds, describe, each_case, note
from ftsys.bench.harness.output import Findings, bench_parser, conclude, parse, say
from ftsys.bench.harness.peers import OURS, peer_spec
from ftsys.bench.harness.rounds import Blocks, Crew, Ranks, in_turns
from ftsys.bench.imbalance import PER_RANK, RANKS, Lengths, drawn_lengths, ours, stock
from ftsys.config import build_run, resolve_task
from ftsys.data.prepare import ensure_store

MODELS = ("minilm",)
RANK_COUNTS = (1, 2, 4)
TASKS = {"MRPC": "mrpc", "SST-2": "sst2", "MNLI": "mnli", "RTE": "rte"}
"""Folders of GLUE whose lengths are simulated, and their tasks."""


def bench_ranks(
    found: Findings, models: Sequence[str], repeats: int = 5, steps: int = 4, rows: int | None = None
) -> None:
    """Measure 1, 2 and 4 ranks, as many as there are CPUs, each with one CPU of its own and the same global batch."""
    cpus = sorted(os.sched_getaffinity(0))
    counts = [count for count in RANK_COUNTS if count <= len(cpus)]
    found.notes += [f"{count} ranks: not measured, {len(cpus)} CPUs" for count in RANK_COUNTS if count not in counts]
    for case in each_case(models, rows):
        names = {_ranks_of(count): count for count in counts}
        with Crew(case.work) as crew:
            groups: dict[str, Blocks] = {
                name: start_ranks(crew, case, cpus[:count], steps) for name, count in names.items()
            }
            rounds = Rounds({}, in_turns(groups, repeats, tell=say))
        _note(found, case, rounds, names)


def _ranks_of(count: int) -> str:
    return f"{count} rank" + "s" * (count > 1)


def start_ranks(crew: Crew, case: Case, cpus: Sequence[int], steps: int) -> Ranks:
    """A rank of our Trainer on each of `cpus`, all ready for their first block of `steps` optimizer steps."""
    spec = replace(peer_spec("step", OURS, case.folder, case.inputs, case.work), steps=steps)
    port, workers = _free_port(), []
    for rank, cpu in enumerate(cpus):
        name = f"{len(cpus)}-ranks-{rank}"
        own = replace(spec, work=str(case.work / name), cpus=(cpu,))
        workers.append(crew.add(name, own.to_json(), _environment(rank, len(cpus), port)))
    for worker in workers:  # they meet while they are made ready, so all must have been started
        worker.wait_until_ready()
    return Ranks(workers)


def _environment(rank: int, ranks: int, port: int) -> Mapping[str, str]:
    """A launcher's variables where there are several ranks; one alone has no process group."""
    threads = {"OMP_NUM_THREADS": "1"}
    if ranks == 1:
        return threads
    counts = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "RANK": rank, "LOCAL_RANK": rank, "MASTER_PORT": port}
    return {**threads, **{name: str(value) for name, value in counts.items()}, "MASTER_ADDR": "127.0.0.1"}


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _note(found: Findings, case: Case, rounds: Rounds, counts: Mapping[str, int]) -> None:
    table = found.tables[f"{case.name}: ranks of one CPU each, global batch 32"] = {}
    first = next(iter(counts))
    for name, count in counts.items():
        title = f"{case.name}, {name}"
        tokens = note(found, f"{title}: real tokens", rounds.rates(name), "tokens/s", higher_is_better=True)
        ratio = found.ratio(f"{case.name}: {name} / {first}", rounds.over(name, first))
        table[name] = {
            "1000 tokens/s": tokens / 1e3,
            "x one rank": ratio.median,
            "+-": ratio.spread,
            "efficiency": ratio.median / count,
            "peak GB a rank": rounds.memory(name) / 1e9,
        }
    describe(found, case, rounds, "ranks")


def length_sources(store: str = "auto") -> Iterator[tuple[str, Lengths]]:
    """(what, token lengths) of GLUE's training splits below FTSYS_GLUE_DIR, else of the synthetic sample."""
    glue = os.environ.get("FTSYS_GLUE_DIR")
    folders = {name: Path(glue) / name for name in TASKS if (Path(glue) / name).is_dir()} if glue else {}
    wanted = {name: (TASKS[name], str(folder)) for name, folder in folders.items()}
    for name, (task, source) in (wanted or {"synthetic sample": ("paraphrase", "synthetic")}).items():
        tree = {"task": {"name": task}, "data": {"source": source, "store": store, "max_length": 128}}
        run = build_run({**tree, "model": {"name": "bundled"}, "output_dir": "unused"})
        yield name, np.asarray(ensure_store(run, resolve_task(run)).splits["train"].lengths)


def bench_balance(
    found: Findings, sources: Iterator[tuple[str, Lengths]], ranks: Sequence[int] = RANKS, per_rank: int = PER_RANK
) -> None:
    """Simulate each length distribution with `per_rank` examples a rank; see `ftsys.bench.imbalance`."""
    seen = []
    for name, lengths in sources:
        seen.append(name)
        table = found.tables[f"{name}: simulated efficiency, {per_rank} examples a rank"] = {}
        for count in ranks:
            drawn = drawn_lengths(lengths, count, per_rank)
            own, planning = ours(drawn, count, per_rank)
            grouped, plain = (stock(drawn, count, per_rank, length_grouped=flag) for flag in (True, False))
            title = f"{name}, {count:,} ranks"
            found.settings[title] = {
                "ours": vars(own),
                "stock, length-grouped": vars(grouped),
                "stock, random": vars(plain),
                "seconds to plan a step": planning,
            }
            found.ratios[f"{title}: efficiency, ours / stock length-grouped"] = own.efficiency / grouped.efficiency
            table[f"{count:,} ranks"] = {
                "ours": own.efficiency,
                "imbalance": own.imbalance,
                "stock grouped": grouped.efficiency,
                "stock random": plain.efficiency,
                "plan ms": planning * 1e3,
            }
    found.notes += [f"{name}: not simulated, FTSYS_GLUE_DIR has no such folder" for name in TASKS if name not in seen]


def main(words: Sequence[str]) -> int:
    """`ftsys bench scaling`: measure, simulate, print, record, plot."""
    parser = bench_parser("scaling", "Ranks on this machine, and the balance of thousands.", 5, MODELS)
    parser.add_argument("--simulated", action="store_true", help="the balance alone: no rank is started")
    options = parse(parser, words)
    found = Findings(settings={"repeats": options.repeats, "warm_up": 1})
    if not options.simulated:
        bench_ranks(found, options.models, options.repeats, *((1, 64) if options.quick else ()))
    bench_balance(found, length_sources(), RANKS[:1] if options.quick else RANKS)
    conclude(options.name, found, options.output)
    return 0
