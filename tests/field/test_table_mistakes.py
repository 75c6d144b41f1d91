"""Tables as people first write them: each mistake is found before anything is trained, with status 2 or 77."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from ftsys.cli import main
from ftsys.config import identity_parts
from ftsys.errors import BAD_INPUT, FAILED, NOT_OURS
from ftsys.run_folder.claim import claim_run_folder
from ftsys.table import forecast
from ftsys.table.cells import Cell, cells_of
from ftsys.table.pool import run, slots, whole
from ftsys.table.pool.slots import Slot
from ftsys.table.spec import read_spec
from ftsys.table.state import LOG

RUN = """output_dir = "t"
[task]
name = "cola"
[data]
source = "glue"
[train]
max_steps = 2
"""
COLA = "".join(f"gj04\t{number % 2}\t\tThe book number {number} fell.\n" for number in range(12))


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minilm_folder: Path) -> Path:
    """A folder with CoLA's files and a run file, as the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "glue/CoLA").mkdir(parents=True)
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / "glue/CoLA" / name).write_text(COLA)
    (tmp_path / "run.toml").write_text(RUN)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["--tasks", "cola", "rte", "sst2"], BAD_INPUT, "bundled, rte: glue has no folder 'RTE'"),
        (["--tasks", "cola", "rte", "sst2"], BAD_INPUT, "bundled, sst2: glue has no folder 'SST-2'"),
        (["--tasks", "all"], BAD_INPUT, "bundled, wnli: glue has no folder 'WNLI'"),
        (["--seeds", "5..1"], BAD_INPUT, "'5..1' is an empty range"),
        (["--seeds", ","], BAD_INPUT, "seeds '' is no number and no range"),
        (["--table.seeds", "[]"], BAD_INPUT, "table.seeds=[] names nothing"),
        (["--tasks", "cola", "cola"], BAD_INPUT, "two of the tasks have the name 'cola'"),
        (["--models", "no/such-model"], BAD_INPUT, "no/such-model"),
        (["--slots", "0"], BAD_INPUT, "--slots 0 is too small"),
        (["--train.epoch", "3"], BAD_INPUT, "did you mean train.epochs"),
        (["--results", "--compare", "bundled", "bert"], BAD_INPUT, "--compare 'bert' is no model of the table"),
        (["--dry-run", "--compare", "bundled", "bert"], BAD_INPUT, "--compare 'bert' is no model of the table"),
        (["--compare", "bundled", "bert"], BAD_INPUT, "--compare 'bert' is no model of the table"),
        (["--slurm"], BAD_INPUT, "the number of GPUs on each node is not set"),
    ],
)
def test_mistakes(arguments: list[str], status: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", "run.toml", *arguments]) == status
    assert told in capsys.readouterr().err
    assert not list(Path().glob("t/*/*/*/attempts"))


def test_a_dry_run_shows_the_plan_and_trains_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", "run.toml", "--seeds", "1..3", "--slots", "2", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "bundled  cola   1..3  3 to do      2" in out
    assert "3 runs: 3 to do; on 2 slots" in out
    assert not Path("t").exists()


def test_a_dry_run_of_a_retry_forgets_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    (cell,) = cells_of(read_spec("run.toml", ()))
    claim_run_folder(cell.folder, identity_parts(cell.run), False)
    (cell.folder / "failures.json").write_text('{"1": 2}')
    assert main(["table", "run.toml", "--slots", "2", "--dry-run"]) == 0
    assert "1 runs: 1 failed" in capsys.readouterr().out
    assert main(["table", "run.toml", "--slots", "2", "--dry-run", "--retry"]) == 0
    assert "1 runs: 1 stopped" in capsys.readouterr().out
    assert (cell.folder / "failures.json").read_text() == '{"1": 2}'


def test_a_model_that_does_not_fit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(forecast.os, "sysconf", lambda name: 2**30 if name == "SC_PHYS_PAGES" else 1)
    assert main(["table", "run.toml", "--slots", "2", "--cpu"]) == BAD_INPUT
    error = capsys.readouterr().err
    assert "bundled, cola: a run needs" in error
    assert "2 at a time do not fit into the 1.0 GiB of this machine: give --slots 1" in error


HALF = '{"task": "cola", "metrics": {"valid'


@pytest.mark.parametrize("name", ["results.json", "failures.json"])
def test_a_half_written_run_folder(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A disk that was full, or a copy that was cut off. A killed run has no such file: it just goes on."""
    (cell,) = cells_of(read_spec("run.toml", ()))
    claim_run_folder(cell.folder, identity_parts(cell.run), False)
    (cell.folder / name).write_text(HALF)
    for arguments in ([], ["--dry-run"], ["--results"]):
        assert main(["table", "run.toml", *arguments]) == BAD_INPUT
        error = capsys.readouterr().err
        assert f"error: 't/bundled/cola/seed-42/{name}' is damaged" in error
        assert error.count("\n") == 1, error


def test_predictions_of_a_finished_run_that_are_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    (cell,) = cells_of(read_spec("run.toml", ()))
    claim_run_folder(cell.folder, identity_parts(cell.run), False)
    metrics = {"validation": {"matthews_correlation": 0.5, "examples": 12}}
    (cell.folder / "results.json").write_text(json.dumps({"task": "cola", "metrics": metrics, "attempt": 1}))
    path = cell.folder / "predictions/validation.tsv"
    for text, told in ((None, "is not there, though its run is finished"), ("index\tpredic", "is damaged")):
        if text is not None:
            path.parent.mkdir()
            path.write_text(text)
        assert main(["table", "run.toml"]) == BAD_INPUT
        error = capsys.readouterr().err
        assert f"error: 't/bundled/cola/seed-42/predictions/validation.tsv' {told}" in error
        assert error.count("\n") == 1, error


def test_slots_of_cpus_on_a_machine_with_gpus(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(slots, "usable_gpus", lambda environ: ("0", "1"))
    assert main(["table", "run.toml", "--slots", "2"]) == BAD_INPUT
    assert "this machine computes on 2 GPU(s): write --runs-per-gpu N" in capsys.readouterr().err


class Ended:
    """A process that has ended."""

    def __init__(self, status: int) -> None:
        self.status = status

    def poll(self) -> int:
        return self.status

    def terminate(self) -> None:
        pass

    def kill(self) -> None:
        pass


@pytest.fixture
def every_run_ends(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], None]:
    """A function that gives every run of a table an exit status, and its log a last line."""
    monkeypatch.setattr(run, "POLL_SECONDS", 0.0)

    def ends(status: int, line: str) -> None:
        def start(cell: Cell, slot: Slot) -> Ended:
            claim_run_folder(cell.folder, identity_parts(cell.run), False)
            (cell.folder / LOG).parent.mkdir(exist_ok=True)
            (cell.folder / LOG).write_text(f"{line}\n")
            return Ended(status)

        monkeypatch.setattr(whole, "Pool", partial(run.Pool, start=start))

    return ends


def test_failed_runs_are_shown_and_another_learning_rate_is_refused(
    every_run_ends: Callable[[int, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    every_run_ends(FAILED, "out of luck")
    assert main(["table", "run.toml"]) == FAILED
    assert "bundled, cola, seed 42: failed: exit status 1: out of luck" in capsys.readouterr().out
    assert main(["table", "run.toml", "--train.learning_rate", "1e-3"]) == NOT_OURS
    assert "train.learning_rate is 5e-05 there and 0.001 here" in capsys.readouterr().err


def test_a_run_that_finds_its_folder_taken_is_shown_with_its_reason(
    every_run_ends: Callable[[int, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command would not go on: that would be 75."""
    every_run_ends(NOT_OURS, "error: the checkpoints are of a run on other data")
    assert main(["table", "run.toml"]) == NOT_OURS
    told = capsys.readouterr()
    why = "exit status 77: error: the checkpoints are of a run on other data"
    assert f"bundled, cola, seed 42: refused: {why}" in told.out
    assert f"bundled/cola/seed-42: refused ({why})" in told.err
    assert Path("t/table.md").exists()
