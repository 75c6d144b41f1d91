"""Measures the seconds from the command to the mean score that the course's recipe ends with, over seeds.

Each training is a process of its own. The sides take turns, seed by seed, and each first trains one step, which fills
the caches of files and of compiled kernels.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from ftsys.bench.harness.inputs import PAIR_TASKS, read_pairs
from ftsys.bench.harness.measuring import note
from ftsys.bench.harness.models import model_folders
from ftsys.bench.harness.output import Cell, Findings, bench_parser, conclude, parse
from ftsys.bench.harness.peers import check_peers
from ftsys.bench.harness.precision import faster_precision
from ftsys.bench.quality.curves import Curve, final_scores, first_reached, mean_scores, standard_error
from ftsys.bench.quality.runs import Kept, trained
from ftsys.bench.quality.sides import COURSE, SIDES, Material
from ftsys.bench.startup import save_texts
from ftsys.console.printer import say
from ftsys.errors import ConfigError

SEEDS, EVALUATIONS = 5, 2
Curves = Mapping[str, Sequence[Curve]]


def bench_quality(
    material: Material, sides: Sequence[str], seeds: Sequence[int], work: Path, target: float | None, kept: Kept
) -> Findings:
    """Train every seed of every side, and find when the mean over seeds reached `target`.

    `target` is between 0 and 1; None: the mean of the course's last scores in this run.
    """
    curves: dict[str, list[Curve]] = {side: [] for side in sides}
    for turn, seed in enumerate(seeds):
        for side in [*sides[turn % len(sides) :], *sides[: turn % len(sides)]]:
            curves[side].append(_curve(side, material, work, seed, kept))
            last = curves[side][-1][-1]
            say(f"{side}, seed {seed}: {last.score:.4f} after {last.seconds:.1f} s and {last.step} steps")
    found = Findings(settings={"seeds": list(seeds), "sides": {side: SIDES[side] for side in sides}})
    note_quality(found, material.pairs.text, curves, target)
    return found


def _curve(side: str, material: Material, work: Path, seed: int, kept: Kept) -> Curve:
    """Return the curve that is kept, or train. The first training of a side comes after one of a single step."""
    curve = kept.get(side, seed)
    if curve is None:
        if not (work / f"{side}-warm").exists():
            (work / f"{side}-warm").mkdir()
            trained(side, material.warming_up(), work / f"{side}-warm-up", seed)
        curve = trained(side, material, work / f"{side}-{seed}", seed)
        kept.put(side, seed, curve)
    return curve


def note_quality(found: Findings, text: str, curves: Curves, target: float | None) -> None:
    """Add seconds, ratios and scores to the record, and a table for the target and one for it less its error."""
    ends = {side: final_scores(of_side) for side, of_side in curves.items()}
    error = standard_error(ends[COURSE]) if target is None else 0.0
    target = mean(ends[COURSE]) if target is None else target
    for side, scores in ends.items():
        note(found, f"{side}: last score", scores, "share", higher_is_better=True)
    goals = {f"{text}: from the command to the score {target:.4f}": target}
    if error:
        goals[f"{text}: to {target - error:.4f}, one standard error below"] = target - error
    for title, goal in goals.items():
        found.tables[title] = {side: _row(found, title, side, curves, goal) for side in curves}
    found.settings |= {"target": target, "standard error of the target": error}
    found.settings["curves"] = {
        side: {
            "mean scores": mean_scores(of_side),
            "seeds": [[(point.step, point.seconds, point.score) for point in curve] for curve in of_side],
        }
        for side, of_side in curves.items()
    }


def _row(found: Findings, title: str, side: str, curves: Curves, goal: float) -> dict[str, Cell]:
    """Return a side's row; a side that never reaches the goal has no seconds, and a note says so."""
    ends = final_scores(curves[side])
    scores = {"last score": mean(ends), "error": standard_error(ends)}
    place, of_course = first_reached(curves[side], goal), first_reached(curves[COURSE], goal)
    if place is None:
        found.notes.append(f"{side}: its mean over seeds has not reached {goal:.4f}")
        return scores
    seconds = [curve[place].seconds for curve in curves[side]]
    row: dict[str, Cell] = {"seconds": note(found, f"{title}, {side}", seconds, "s")}
    if side != COURSE and of_course is not None:
        course = [curve[of_course].seconds for curve in curves[COURSE]]
        ratio = found.ratio(
            f"{title}: {side} / {COURSE}", [own / its for own, its in zip(seconds, course, strict=True)]
        )
        row |= {"of the course's": ratio.median, "+-": ratio.spread}
    return row | {"steps": float(curves[side][0][place].step)} | scores


def main(words: Sequence[str]) -> int:
    """Run `ftsys bench quality`: train, print, write record and plot."""
    parser = bench_parser("quality", "Measure the time from the command to the course's mean score.", SEEDS)
    add = parser.add_argument
    add("--task", default="mrpc", choices=sorted(PAIR_TASKS), help="task of FTSYS_GLUE_DIR (default mrpc)")
    add("--peers", nargs="+", default=list(SIDES), metavar="PEER", help=f"some of {', '.join(SIDES)} (default: all)")
    add("--recipe", default="minilm", help="recipe of ours, and of the best stock one (default minilm)")
    add("--model", help="model to train (default minilm)")
    add("--target", type=float, help="score to reach, between 0 and 1 (default: the course's mean in this run)")
    add("--evaluations", type=int, default=EVALUATIONS, help=f"evaluations of an epoch (default {EVALUATIONS})")
    add("--keep", type=Path, metavar="FILE", help="keep finished trainings there, and do not repeat them")
    options = parse(parser, words)
    check_peers(options.peers, list(SIDES))
    ConfigError.raise_if(_mistakes(options.peers, options.target, options.evaluations))
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the models are local: no lookup is needed
    rows, model = (64 if options.quick else None), options.model or ("tiny" if options.quick else "minilm")
    with tempfile.TemporaryDirectory(prefix="ftsys-bench-") as scratch:
        work, pairs = Path(scratch), read_pairs(rows, options.task)
        texts, files = save_texts(pairs, work)
        folder = model_folders([model], work)[model]
        precision = faster_precision()
        material = Material(pairs, texts, files, folder, options.recipe, precision, options.evaluations)
        chosen = {"task": options.task, "text": pairs.text, "pairs": pairs.rows("train"), "model": model}
        chosen |= {"recipe": options.recipe, "precision of best": precision, "evaluations": options.evaluations}
        seeds, kept = range(1, options.repeats + 1), Kept(options.keep, chosen)
        found = bench_quality(material, options.peers, seeds, work, options.target, kept)
    found.settings |= chosen
    conclude(options.name, found, options.output)
    return 0


def _mistakes(peers: Sequence[str], target: float | None, evaluations: int) -> list[str]:
    found = []
    if COURSE not in peers:
        found.append(f"--peers lacks {COURSE!r}, by which all others are divided.")
    if target is not None and not 0 < target < 1:
        found.append(f"--target {target} is not between 0 and 1.")
    if evaluations < 1:
        found.append(f"--evaluations {evaluations} gives no curve. Write a whole number above 0.")
    return found
