"""Measures peers from texts to figures: prepares models and data, starts processes, runs the rounds."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ftsys.bench.harness.inputs import Inputs, make_inputs, read_pairs
from ftsys.bench.harness.models import model_folders
from ftsys.bench.harness.output import Findings
from ftsys.bench.harness.peers import PEERS, Spec
from ftsys.bench.harness.record import Measurement
from ftsys.bench.harness.rounds import Blocks, Crew, Figures, in_turns
from ftsys.console.printer import say


@dataclass(frozen=True)
class Case:
    """One model with its data, in a scratch folder."""

    name: str
    folder: Path
    inputs: Inputs
    work: Path


@dataclass(frozen=True)
class Rounds:
    """Each peer's facts before its first block, and the figures of its blocks, one block per round."""

    ready: dict[str, Figures]
    blocks: dict[str, list[Figures]]

    def rates(self, peer: str, what: str = "tokens") -> list[float]:
        """Return `what` per second, for each round."""
        return [block[what] / block["seconds"] for block in self.blocks[peer]]

    def seconds(self, peer: str) -> list[float]:
        """Return the seconds of a block, for each round."""
        return [block["seconds"] for block in self.blocks[peer]]

    def over(self, one: str, other: str) -> list[float]:
        """Return the ratio of real tokens per second of `one` to `other`, for each round."""
        return [own / theirs for own, theirs in zip(self.rates(one), self.rates(other), strict=True)]

    def memory(self, peer: str) -> int:
        """Return the peak bytes of the peer's process."""
        return int(max(block["memory"] for block in self.blocks[peer]))


def each_case(models: Sequence[str], rows: int | None) -> Iterator[Case]:
    """Prepare the models one by one. Raises ConfigError for a model that does not exist, before any measurement."""
    with tempfile.TemporaryDirectory(prefix="ftsys-bench-") as scratch:
        pairs = read_pairs(rows)
        for index, (name, folder) in enumerate(model_folders(models, Path(scratch)).items()):
            work = Path(scratch) / f"work-{index}"
            inputs = make_inputs(pairs, folder, work)
            say(
                f"{name}: {inputs.rows['train']:,} training and {inputs.rows['validation']:,} other pairs, {pairs.text}"
            )
            yield Case(name, folder, inputs, work)


def measure(case: Case, specs: Mapping[str, Spec], repeats: int, warm_up: int = 1) -> Rounds:
    """Start a process for each spec and run the rounds."""
    with Crew(case.work) as crew:
        workers = {name: crew.add(name, spec.to_json()) for name, spec in specs.items()}
        for worker in workers.values():
            worker.wait_until_ready()
        peers: dict[str, Blocks] = dict(workers)
        blocks = in_turns(peers, repeats, warm_up, tell=say)
        return Rounds({name: worker.ready for name, worker in workers.items()}, blocks)


def describe(found: Findings, case: Case, rounds: Rounds, what: str) -> None:
    """Add the data, the peers and the figures of every block to the record's settings."""
    peers = found.settings.setdefault("peers", {})
    peers |= {name: PEERS[name].description_here for name in rounds.blocks if name in PEERS}
    data = {"text": case.inputs.text, "pairs": case.inputs.rows, "real_tokens": case.inputs.tokens}
    found.settings[f"{case.name}: {what}"] = {**data, "ready": rounds.ready, "blocks": rounds.blocks}


def note_ratios(found: Findings, title: str, rounds: Rounds, one: str, others: Sequence[str]) -> None:
    """Add the speed of `one` over each of `others` that was measured to the record and the table."""
    for other in others:
        if one in rounds.blocks and other in rounds.blocks and other != one:
            ratio = found.ratio(f"{title}: {one} / {other}", rounds.over(one, other))
            found.tables[title][other] |= {f"{one} is x": ratio.median, f"{one} +-": ratio.spread}


def note(found: Findings, name: str, values: Sequence[float], unit: str, higher_is_better: bool = False) -> float:
    """Add a measurement to the record; returns its median."""
    found.measurements[name] = Measurement.of(values, unit, higher_is_better)
    return found.measurements[name].median
