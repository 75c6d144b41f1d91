"""Runs one training as a process of its own, from the command to its last metric, and keeps its curve in a file."""

import json
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

from ftsys.bench.harness.rounds import PeerFailed
from ftsys.bench.quality.curves import Curve, Evaluation
from ftsys.bench.quality.sides import Material, command_of

SECONDS = 7200.0
"""Time limit of a training."""


def trained(side: str, material: Material, folder: Path, seed: int) -> list[Evaluation]:
    """Train one seed of a side in a new folder, which is removed; returns its curve. Raises PeerFailed."""
    folder.mkdir(parents=True)
    command, lines = command_of(side, material, folder, seed)
    log = folder / "output.log"
    start = time.time()
    with log.open("w") as stream:
        try:
            done = subprocess.run(command, stdout=stream, stderr=stream, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise PeerFailed(f"{side}, seed {seed}: no end within {SECONDS:.0f} s") from error
    if done.returncode or not lines.exists():
        raise PeerFailed(f"{side}, seed {seed}, has failed:\n{log.read_text(errors='replace')[-3000:]}")
    curve = read_curve(lines.read_text(encoding="utf-8").splitlines(), material.pairs.task.metrics, start)
    shutil.rmtree(folder)
    return curve


def read_curve(lines: Sequence[str], metrics: Sequence[str], start: float) -> list[Evaluation]:
    """Return the evaluations among the lines, whose times are seconds since 1970; other lines are of training."""
    found = [line for line in map(json.loads, lines) if metrics[0] in line]
    return [Evaluation(line["step"], line["time"] - start, mean(line[name] for name in metrics)) for line in found]


class Kept:
    """The curves that were measured, also by earlier calls where a file keeps them, so that none is measured twice."""

    def __init__(self, path: Path | None, settings: dict[str, Any]) -> None:
        """Read those lines of the file whose settings are the same: data, recipe, evaluations."""
        self._path, self._settings = path, settings
        lines = path.read_text(encoding="utf-8").splitlines() if path is not None and path.exists() else []
        same = [line for line in map(json.loads, lines) if line["settings"] == settings]
        self._curves = {(line["side"], line["seed"]): [Evaluation(**point) for point in line["curve"]] for line in same}

    def get(self, side: str, seed: int) -> Curve | None:
        """Return a curve that is there."""
        return self._curves.get((side, seed))

    def put(self, side: str, seed: int, curve: Curve) -> None:
        """Keep a curve."""
        self._curves[side, seed] = list(curve)
        if self._path is not None:
            line = {"settings": self._settings, "side": side, "seed": seed, "curve": [asdict(point) for point in curve]}
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
