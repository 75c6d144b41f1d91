"""Tests which runs of a table are submitted, in which arrays, and what these wait for."""

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import pytest

from ftsys.cli import main
from ftsys.config import identity_parts
from ftsys.run_folder.claim import claim_run_folder
from ftsys.table import slurm
from ftsys.table.cells import Cell, cells_of
from ftsys.table.spec import TableSpec, read_spec

Submitted = list[tuple[list[str], str]]


@pytest.fixture
def spec(tmp_path: Path) -> TableSpec:
    (tmp_path / "run.toml").write_text(
        f'output_dir = "{tmp_path}/t"\n[table]\ntasks = ["mnli", "rte", "cola"]\nseeds = "1..2"\n'
    )
    return read_spec(str(tmp_path / "run.toml"), (), transfer="mnli")


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> Submitted:
    found: Submitted = []

    def submit(spec: TableSpec, cells: Sequence[Cell], options: Namespace, after: str = "") -> str:
        found.append(([f"{cell.column}-{cell.seed}" for cell in cells], after))
        return str(100 + len(found))

    monkeypatch.setattr(slurm, "_submit", submit)
    monkeypatch.setattr(slurm, "prepare", lambda cells: {})
    monkeypatch.setattr(slurm, "live_cells", lambda cells: set())
    return found


def submit(spec: TableSpec) -> None:
    slurm.submit_table(spec, cells_of(spec), Namespace(dry_run=False))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--time", "02:00:00", "--partition", "gpu"], "--time, --partition are of SLURM jobs: add --slurm, or leave"),
        (["--at-a-time", "3"], "--at-a-time are of SLURM jobs"),
        (["--slurm", "--slots", "2", "--dry-run"], "--slots are of runs on this machine: leave them out with --slurm"),
        (["--retry", "--results"], "--retry trains, and --results does not"),
    ],
)
def test_options_without_effect_are_refused(
    spec: TableSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["table", str(tmp_path / "run.toml"), *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "t").exists()


def test_only_runs_that_start_from_another_wait_for_it(spec: TableSpec, submitted: Submitted) -> None:
    submit(spec)
    assert submitted == [
        (["mnli-1", "mnli-2"], ""),
        (["cola-1", "cola-2"], ""),
        (["rte-from-mnli-1", "rte-from-mnli-2"], "101"),
    ]


def test_they_wait_for_one_in_the_queue_too(
    spec: TableSpec, submitted: Submitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued = next(cell for cell in cells_of(spec) if (cell.column, cell.seed) == ("mnli", 2))
    (queued.folder / "logs").mkdir(parents=True)
    (queued.folder / "logs/slurm-task").write_text("17_1\n")
    monkeypatch.setattr(slurm, "live_cells", lambda cells: {queued.folder})
    submit(spec)
    assert submitted[0] == (["mnli-1"], "")
    assert submitted[2] == (["rte-from-mnli-1", "rte-from-mnli-2"], "101:17")


def test_runs_whose_model_will_never_be_there_are_left_out(
    spec: TableSpec, submitted: Submitted, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = cells_of(spec)[0]
    claim_run_folder(failed.folder, identity_parts(failed.run), False)
    (failed.folder / "failures.json").write_text(json.dumps({"1": 1, "2": 1}))
    submit(spec)
    assert submitted == [(["mnli-2"], ""), (["cola-1", "cola-2"], ""), (["rte-from-mnli-2"], "101")]
    assert "1 runs are left out, because the run that they start from failed" in capsys.readouterr().out
    slurm.submit_table(spec, cells_of(spec), Namespace(dry_run=True, retry=True))
    assert submitted[3] == (["mnli-1", "mnli-2"], ""), "a dry run of --retry shows what it would submit"
    assert json.loads((failed.folder / "failures.json").read_text()) == {"1": 1, "2": 1}
