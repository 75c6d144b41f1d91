"""Measures checkpoints: how long a step waits for a save, how long the whole save takes, how long a resume takes.

One process holds a trained state of ours and of the stock Trainer; saves and loads are interleaved. The stock Trainer
neither hashes nor flushes its files, so they may still be in the page cache when its save returns.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from ftsys.bench.harness.measuring import Case, each_case
from ftsys.bench.harness.output import Findings, bench_parser, conclude, parse
from ftsys.bench.harness.peers import OURS, peer_spec
from ftsys.bench.harness.record import Measurement, interleaved
from ftsys.run_folder.layout import CHECKPOINTS

MODELS = ("minilm",)
STALL, WAITED, STOCK = "ours, in the background", "ours, waited for", "stock Trainer"
STEPS = 2
"""Optimizer steps before the first save, so that the optimizer has moments."""

Calls = dict[str, Callable[[], object]]


def bench_save(models: Sequence[str] = MODELS, repeats: int = 7, rows: int | None = 256) -> Findings:
    """Measure `repeats` saves and resumes of each kind."""
    found = Findings(settings={"repeats": repeats, "warm_up": 1})
    for case in each_case(models, rows):
        (our_saves, our_loads), (stock_saves, stock_loads) = _our_calls(case), _stock_calls(case)
        taken = {name: times for name, times in interleaved(our_saves | stock_saves, repeats).items() if name}
        loaded = interleaved(our_loads | stock_loads, repeats)
        _note(found, case, taken, loaded)
    return found


def _our_calls(case: Case) -> tuple[Calls, Calls]:
    """Train ours; returns the calls to time, by name: saves, and resumes into the existing model."""
    from ftsys.bench.harness.our_trainer import our_trainer
    from ftsys.train.checkpoint.catalog import newest_checkpoint
    from ftsys.train.checkpoint.state_dict import import_state
    from ftsys.train.trainer.checkpointers.run_folder import Attempt, RunFolderCheckpointer

    spec = peer_spec("save", OURS, case.folder, case.inputs, case.work)
    checkpoints = Path(spec.work) / CHECKPOINTS
    checkpointer = RunFolderCheckpointer(Attempt(checkpoints, "benchmark", 1, keep=1))
    trainer = our_trainer(spec, max_steps=STEPS, checkpointer=checkpointer)
    trainer.train()

    def begin() -> None:
        checkpointer.save(trainer)

    def wait() -> None:
        begin()
        checkpointer.wait()

    def resume() -> None:
        newest = newest_checkpoint(checkpoints, "benchmark", 1, say=lambda line: None)
        assert newest is not None
        import_state(trainer.model_wrapped, trainer.optimizer, newest.load_state())

    # The unnamed call finishes the background save before the next call is timed.
    return {WAITED: wait, STALL: begin, "": checkpointer.wait}, {"ours": resume}


def _stock_calls(case: Case) -> tuple[Calls, Calls]:
    """Train the stock Trainer; returns the calls to time, as `_our_calls` does."""
    from ftsys.bench.harness.peer_loops import stock_trainer

    trainer = stock_trainer(peer_spec("save", "best", case.folder, case.inputs, case.work), max_steps=STEPS)
    trainer.train()
    folder = Path(trainer.args.output_dir) / f"checkpoint-{STEPS}"

    def save() -> None:
        trainer._save_checkpoint(trainer.model, None)

    def resume() -> None:
        trainer._load_from_checkpoint(str(folder))
        trainer._load_optimizer_and_scheduler(str(folder))

    return {STOCK: save}, {STOCK: resume}


def _note(found: Findings, case: Case, saves: dict[str, list[float]], loads: dict[str, list[float]]) -> None:
    for kind, times in (("save", saves), ("resume", loads)):
        title = f"{case.name}: {kind}"
        found.tables[title] = {}
        for name, taken in times.items():
            measured = found.measurements[f"{title}, {name}"] = Measurement.of(taken, "s")
            found.tables[title][name] = {"milliseconds": measured.median * 1e3, "spread": measured.spread * 1e3}
    stalls, waits = saves[STALL], saves[WAITED]
    share = found.ratio(f"{case.name}: stall over a waited save", [a / b for a, b in zip(stalls, waits, strict=True)])
    found.notes.append(f"{case.name}: a step waits {share.median:.1%} of what the whole save takes")


def main(words: Sequence[str]) -> int:
    """Run `ftsys bench save`: measure, print, write record and plot."""
    options = parse(
        bench_parser("save", "Measure checkpoints of ftsys and of the stock Trainer in one run.", 7, MODELS), words
    )
    conclude(options.name, bench_save(options.models, options.repeats), options.output)
    return 0
