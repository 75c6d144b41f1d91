"""The journal of a sweep, and its reader."""

import tempfile
from functools import cache
from pathlib import Path

from ftsys.sweep.results import best_first
from ftsys.sweep.settings import Sweep, read_sweep
from ftsys.sweep.study import JOURNAL, SharedStudy

RUN_FILE = b'output_dir = "out"\n[task]\nname = "mrpc"\n'


def sweep_of(folder: Path) -> Sweep:
    return read_sweep(folder / "run.toml", (), ("train.learning_rate=log:1e-5..1e-4",), folder)


def read_journal(path: Path) -> None:
    """Open a study as `ftsys sweep` does and sort its trials, in the folder of its run file."""
    best_first(SharedStudy(sweep_of(path.parent)))


@cache
def journal() -> bytes:
    """Return the journal of a study with a trial that has ended and one that runs."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "run.toml").write_bytes(RUN_FILE)
        shared = SharedStudy(sweep_of(Path(folder)))
        for value in (0.5, None):
            claimed = shared.next_trial()
            assert claimed is not None
            with claimed.claim:
                claimed.trial.report(0.25, 1)
                if value is not None:
                    shared.end(claimed, "complete", value)
        return (Path(folder) / JOURNAL).read_bytes()
