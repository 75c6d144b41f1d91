"""Measures 1, 2 and 4 gloo ranks on fixed cores of this machine, and simulates the balance of up to 4,096 ranks."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ftsys.bench.harness.local_ranks import rank_variables
from ftsys.bench.harness.measuring import Case, Rounds, describe, each_case, note
from ftsys.bench.harness.output import Findings, bench_parser, conclude, parse
from ftsys.bench.harness.peers import OURS, peer_spec
from ftsys.bench.harness.rounds import Blocks, Crew, Ranks, in_turns
from ftsys.bench.imbalance import PER_RANK, RANKS, Lengths, drawn_lengths, ours, stock
from ftsys.config import build_run, resolve_task
from ftsys.console.printer import say
from ftsys.data.prepare import ensure_store
from ftsys.ranks import free_port

MODELS = ("minilm",)
RANK_COUNTS = (1, 2, 4)
TASKS = {"MRPC": "mrpc", "SST-2": "sst2", "MNLI": "mnli", "RTE": "rte"}
"""GLUE's folders whose lengths are simulated -> their tasks."""


def bench_ranks(
    found: Findings, models: Sequence[str], repeats: int = 5, steps: int = 4, rows: int | None = None
) -> None:
    """Measure 1, 2 and 4 ranks with the same global batch, one CPU per rank, as far as there are CPUs."""
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
    """Start a rank of our Trainer on each of `cpus`; returns once all are ready for a block of `steps` steps."""
    spec = replace(peer_spec("step", OURS, case.folder, case.inputs, case.work), steps=steps)
    port, workers = free_port(), []
    for rank, cpu in enumerate(cpus):
        name = f"{len(cpus)}-ranks-{rank}"
        own = replace(spec, work=str(case.work / name), cpus=(cpu,))
        variables = {"OMP_NUM_THREADS": "1", **rank_variables(rank, len(cpus), port)}
        workers.append(crew.add(name, own.to_json(), variables))
    for worker in workers:  # ranks form their process group while they get ready, so all must be started first
        worker.wait_until_ready()
    return Ranks(workers)


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
    """Yield (name, token lengths) of GLUE's training splits below FTSYS_GLUE_DIR, else of the synthetic sample."""
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
    """Simulate each length distribution with `per_rank` examples per rank; see `ftsys.bench.imbalance`."""
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
    """Run `ftsys bench scaling`: measure, simulate, print, write record and plot."""
    parser = bench_parser(
        "scaling", "Measure several ranks on this machine, and simulate the load balance of thousands.", 5, MODELS
    )
    parser.add_argument("--simulated", action="store_true", help="only simulate the balance; start no rank")
    options = parse(parser, words)
    found = Findings(settings={"repeats": options.repeats, "warm_up": 1})
    if not options.simulated:
        bench_ranks(found, options.models, options.repeats, *((1, 64) if options.quick else ()))
    bench_balance(found, length_sources(), RANKS[:1] if options.quick else RANKS)
    conclude(options.name, found, options.output)
    return 0
