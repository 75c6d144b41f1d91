"""Changes modules in one place at a time and tries their nearest tests on each: `make mutants`, `--help`."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tools.mutants.mutant import Mutant, mutants_of, sample
from tools.mutants.results import (
    EXPLAINED,
    PAGE,
    RESULTS,
    Explanations,
    Result,
    page,
    read_results,
    unexplained,
    write_results,
)
from tools.mutants.targets import TARGETS, Module
from tools.mutants.tree import Tree
from tools.mutants.trials import Trial, preload, try_tests

ROOT = Path(__file__).parents[2]
LONGEST_BASELINE = 580.0
"""Seconds that unchanged modules may take."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the mutants that are asked for and write results and page; returns 1 where the explanations do not fit."""
    asked = _parser().parse_args(arguments)
    results = read_results(ROOT / RESULTS)
    preload()
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        bench = Bench(Tree(ROOT, Path(scratch) / "tree"), Path(scratch) / "trial")
        for name in asked.only or TARGETS:
            former = results.get(name) if asked.survivors else None
            results[name] = bench.result_of(TARGETS[name], asked.each, asked.seed, former)
            write_results(ROOT / RESULTS, {each: results[each] for each in TARGETS if each in results})
    explained = Explanations.read(ROOT / EXPLAINED)
    ordered = {name: results[name] for name in TARGETS if name in results}
    (ROOT / PAGE).write_text(page(ordered, explained), encoding="utf-8")
    faults = [f"{EXPLAINED} does not explain what survives: {name}" for name in unexplained(ordered, explained)]
    faults += [f"{EXPLAINED} explains what the code no longer has: {name}" for name in outdated(explained, ROOT)]
    for fault in faults:
        print(fault)
    return 1 if faults else 0


def outdated(explained: Explanations, root: Path) -> list[str]:
    """Return the explained mutants that no module of `TARGETS` has any more."""
    paths = [module.path for modules in TARGETS.values() for module in modules]
    known = {mutant.name for path in paths for mutant in mutants_of(path, (root / path).read_bytes())}
    return [name for names in explained.by_kind.values() for name in names if name not in known]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--only", action="append", choices=list(TARGETS), help="a target; may be given several times")
    parser.add_argument("--each", type=int, default=20, help="mutants to try of each target (default: 20)")
    parser.add_argument("--seed", type=int, default=22, help="decides which mutants are tried (default: 22)")
    parser.add_argument("--survivors", action="store_true", help="only try again what survived the last time")
    return parser


class Bench:
    """Tries mutants in one copy of the repository."""

    def __init__(self, tree: Tree, scratch: Path, grace: float = 15.0) -> None:
        """`scratch` is emptied before each trial, which may take `grace` seconds and three times that of no change."""
        self.tree, self.scratch, self.grace = tree, scratch, grace
        self._limits: dict[tuple[str, ...], float] = {}

    def result_of(self, modules: Sequence[Module], most: int, seed: int, former: Result | None) -> Result:
        """Try a sample of the modules' mutants; with `former` only its survivors."""
        nearest = {module.path: module for module in modules}
        mutants = [mutant for path in nearest for mutant in self.tree.mutants(path)]
        if former is None:
            chosen = sample(mutants, most, seed)
            result = Result(len(mutants), len(chosen))
        else:
            chosen = [mutant for mutant in mutants if mutant.name in former.survivors]
            result = replace(former, tried=former.killed + len(chosen), survivors=[])
        for mutant in chosen:
            self._count(mutant, self._try(mutant, nearest[mutant.path]), result)
        return result

    def _try(self, mutant: Mutant, module: Module) -> Trial:
        for tests in filter(None, (module.tests, module.slow_tests)):
            limit = self._limit(tests)
            with self.tree.changed_by(mutant):
                trial = try_tests(self.tree.root, tests, limit, self.scratch)
            if trial.end != "passed":
                break
        return trial

    def _limit(self, tests: tuple[str, ...]) -> float:
        """Return the seconds to wait for these tests. Raises RuntimeError if they fail without a change."""
        if tests not in self._limits:
            trial = try_tests(self.tree.root, tests, LONGEST_BASELINE, self.scratch)
            if trial.end != "passed":
                raise RuntimeError(f"the unchanged code does not pass {' '.join(tests)}: {trial.reason}")
            print(f"== {' '.join(tests)}: {trial.seconds:.1f} s", flush=True)
            self._limits[tests] = self.grace + 3 * trial.seconds
        return self._limits[tests]

    def _count(self, mutant: Mutant, trial: Trial, result: Result) -> None:
        result.failed += trial.end == "failed"
        result.timed_out += trial.end == "timed out"
        if trial.end == "passed":
            result.survivors.append(mutant.name)
        end = {"passed": "SURVIVES"}.get(trial.end, trial.end)
        print(f"{end:<9} {trial.seconds:5.1f} s  line {mutant.line} {mutant.name}  {trial.reason}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
