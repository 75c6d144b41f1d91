"""Tests the pool with processes that are made up: order, failures, other processes, and signals."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ftsys.config import identity_parts
from ftsys.errors import RunFolderError, StoppedEarly
from ftsys.files.lease import LeaseTimes, LeaseWatch
from ftsys.run_folder.claim import claim_run_folder
from ftsys.table.cells import Cell, cells_of
from ftsys.table.pool import run
from ftsys.table.pool.progress import PoolProgress
from ftsys.table.pool.run import Pool
from ftsys.table.pool.slots import Slot
from ftsys.table.spec import read_spec
from ftsys.table.state import check_folders, forget_failures, lease_base, state_of

SLOTS = [Slot(0, "slot 0", {}), Slot(1, "slot 1", {})]


class Made:
    """A process that ends at its second poll, after `work` has written the run folder."""

    def __init__(self, work: Callable[[], int]) -> None:
        self.work, self.polls = work, 0
        self.status: int | None = None
        self.told: list[str] = []

    def poll(self) -> int | None:
        self.polls += 1
        if self.status is None and self.polls == 2:
            self.status = self.work()
        return self.status

    def terminate(self) -> None:
        self.told.append("terminate")
        self.status = 75

    def kill(self) -> None:
        self.told.append("kill")


@pytest.fixture
def cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Cell]:
    monkeypatch.setattr(run, "POLL_SECONDS", 0.0)
    (tmp_path / "run.toml").write_text(
        f'output_dir = "{tmp_path}/t"\n[table]\ntasks = ["mnli", "rte"]\nseeds = "1..2"\n'
    )
    return cells_of(read_spec(str(tmp_path / "run.toml"), (), transfer="mnli"))


def finish(cell: Cell) -> int:
    """Write what a finished run leaves, as far as a table looks at it."""
    claim_run_folder(cell.folder, identity_parts(cell.run), False)
    (cell.folder / "results.json").write_text('{"task": "x", "metrics": {}}')
    return 0


def fail(cell: Cell) -> int:
    claim_run_folder(cell.folder, identity_parts(cell.run), False)
    return 1


def pool(
    cells: list[Cell], work: Callable[[Cell], int], stop: Callable[[], bool] = lambda: False
) -> tuple[Pool, list[str]]:
    started: list[str] = []

    def start(cell: Cell, slot: Slot) -> Made:
        assert cell.needs is None or (cell.needs / "results.json").exists()
        started.append(cell.name)
        return Made(lambda: work(cell))

    return Pool(cells, SLOTS, PoolProgress(len(cells), {}, 2), stop, start), started


def test_all_cells_are_trained_once_and_nothing_is_left_to_do(cells: list[Cell]) -> None:
    one, started = pool(cells, finish)
    assert {state.name for state in one.run().values()} == {"done"}
    assert sorted(started) == sorted(cell.name for cell in cells)
    assert not any(list(cell.folder.glob("*.lease-*")) for cell in cells)
    again, started = pool(cells, finish)
    again.run()
    assert started == []


def test_a_failure_is_tried_once_more_and_what_starts_from_it_is_left(cells: list[Cell]) -> None:
    bad = cells[0]
    one, started = pool(cells, lambda cell: fail(cell) if cell is bad else finish(cell))
    states = one.run()
    assert (states[bad.folder].name, states[bad.folder].failures) == ("failed", 2)
    assert started.count(bad.name) == 2
    assert "bundled/rte-from-mnli/seed-1" not in started
    assert states[cells[3].folder].name == "done"
    assert json.loads((bad.folder / "failures.json").read_text()) == {"1": 1, "2": 1}
    forget_failures(bad)
    again, started = pool(cells, finish)
    again.run()
    assert sorted(started) == ["bundled/mnli/seed-1", "bundled/rte-from-mnli/seed-1"]


def test_wrong_input_is_not_tried_again(cells: list[Cell]) -> None:
    one, started = pool(cells[:1], lambda cell: 2)
    assert one.run()[cells[0].folder].name == "failed"
    assert len(started) == 1


def test_a_start_that_fails_before_it_takes_a_number_is_counted_each_time(cells: list[Cell]) -> None:
    one, started = pool(cells[:1], lambda cell: -9)
    assert (one.run()[cells[0].folder].name, len(started)) == ("failed", 2)


def test_a_killed_attempt_is_no_failure(cells: list[Cell]) -> None:
    """The process that trained it is gone too, so nobody has noted anything."""
    claim_run_folder(cells[0].folder, identity_parts(cells[0].run), False)
    assert (state_of(cells[0]).name, state_of(cells[0]).failures) == ("to do", 0)


def test_a_signal_ends_all_runs(cells: list[Cell]) -> None:
    looks = iter([False, True])
    one, started = pool(cells, finish, lambda: next(looks))
    with pytest.raises(StoppedEarly):
        one.run()
    assert one.running == []
    assert len(started) == 2
    assert all(LeaseWatch(lease_base(cell), LeaseTimes()).try_take() for cell in cells[:2])


@pytest.mark.parametrize(("told_to_stop", "failures"), [(True, 0), (False, 2)])
def test_a_run_that_a_signal_to_all_processes_ends_has_not_failed(
    cells: list[Cell], told_to_stop: bool, failures: int
) -> None:
    """As SLURM or a terminal sends it: it may find a run that has just started and does not handle signals yet."""
    signalled: list[Cell] = []

    def end(cell: Cell) -> int:
        signalled.append(cell)
        return -15

    one, _ = pool(cells, end, lambda: told_to_stop and bool(signalled))
    if told_to_stop:
        with pytest.raises(StoppedEarly):
            one.run()
    else:
        one.run()
    assert {state_of(cell).failures for cell in signalled} == {failures}


def test_a_cell_of_another_process_is_waited_for(cells: list[Cell], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "RETRY_SECONDS", 0.0)
    theirs = cells[0]
    theirs.folder.mkdir(parents=True)
    lease = LeaseWatch(lease_base(theirs), LeaseTimes()).try_take()
    assert lease is not None
    assert state_of(theirs).name == "running"

    def work(cell: Cell) -> int:
        if cell is cells[1]:  # while this process trains another cell, theirs becomes ready
            finish(theirs)
            lease.release()
        return finish(cell)

    one, started = pool(cells, work)
    assert {state.name for state in one.run().values()} == {"done"}
    assert theirs.name not in started


def test_a_folder_of_other_settings_is_refused_with_the_key(cells: list[Cell], tmp_path: Path) -> None:
    finish(cells[0])
    other = cells_of(
        read_spec(str(tmp_path / "run.toml"), ("--train.learning_rate", "1e-4"), tasks=("mnli",), seeds=("1",))
    )
    with pytest.raises(RunFolderError, match=r"train\.learning_rate is 5e-05 there and 0\.0001 here"):
        check_folders(other)


@pytest.mark.parametrize("name", ["results.json", "failures.json", "attempts/000001.json"])
def test_a_half_written_folder_is_refused(cells: list[Cell], name: str) -> None:
    fail(cells[0])
    (cells[0].folder / name).write_text('{"task": ')
    with pytest.raises(RunFolderError, match=name):
        check_folders(cells)


def test_a_slurm_jobs_end_is_read_from_its_status(cells: list[Cell]) -> None:
    told = {"reason": "RuntimeError: a\nb_c", "phase": "train", "step": 0, "attempt": 1, "time": 0.0}
    for cell, state, status in ((cells[0], "refused", 2), (cells[1], "failed", 1)):
        fail(cell)
        (cell.folder / "status.json").write_text(json.dumps(told | {"state": state, "exit": status}))
    refused, failed = map(state_of, cells[:2])
    assert (refused.name, failed.name) == ("failed", "failed once"), "wrong input is not tried twice"
    assert failed.reason == "RuntimeError: a b_c", "one line, also in LaTeX"


def test_a_look_at_a_failed_job_writes_nothing(cells: list[Cell]) -> None:
    fail(cells[0])
    told = {"state": "failed", "exit": 1, "reason": "x", "phase": "train", "step": 0, "attempt": 1, "time": 0.0}
    (cells[0].folder / "status.json").write_text(json.dumps(told))
    assert state_of(cells[0], record=False).name == "failed once"
    assert not (cells[0].folder / "failures.json").exists()
    assert state_of(cells[0]).name == "failed once"
    assert (cells[0].folder / "failures.json").exists()


def find_another_run(cell: Cell) -> int:
    """Do as a start that finds checkpoints of other data: it takes no number."""
    (cell.folder / "logs").mkdir(exist_ok=True)
    (cell.folder / "logs/table.log").write_text("a note\nerror: the checkpoints are of a run on other data\n")
    return 77


def test_a_folder_of_another_run_is_told_with_its_reason(cells: list[Cell]) -> None:
    claim_run_folder(cells[0].folder, identity_parts(cells[0].run), False)
    one, started = pool(cells[:3], find_another_run)
    states = one.run()
    told = "exit status 77: error: the checkpoints are of a run on other data"
    assert [states[cell.folder].name for cell in cells[:3]] == ["refused", "refused", "to do"]
    assert states[cells[0].folder].reason == told
    assert len(started) == 2, "a refusal is not tried again, and what starts from it waits"
    assert [state_of(cell).name for cell in cells[:2]] == ["to do", "to do"], "the next command tries again"


def test_a_cell_that_a_newer_attempt_has_taken_is_left_to_it(cells: list[Cell]) -> None:
    def lose(cell: Cell) -> int:
        for _ in range(2):
            claim_run_folder(cell.folder, identity_parts(cell.run), False)
        return find_another_run(cell)

    one, started = pool(cells[:1], lose)
    assert (one.run()[cells[0].folder].name, len(started)) == ("to do", 1)


def refuse(cell: Cell) -> int:
    """Do as a start that is refused for wrong input after it has taken its number."""
    attempt = claim_run_folder(cell.folder, identity_parts(cell.run), False).attempt
    told = {"state": "refused", "exit": 2, "reason": "natve", "phase": "train", "step": 0, "time": 0.0}
    (cell.folder / "config.toml").touch()
    (cell.folder / "status.json").write_text(json.dumps(told | {"attempt": attempt}))
    return 2


def test_a_retry_forgives_what_the_status_file_still_tells(cells: list[Cell]) -> None:
    refused = cells[0]
    one, _ = pool([refused], refuse)
    assert one.run()[refused.folder].name == "failed"
    assert state_of(refused).retried().name == "stopped"
    forget_failures(refused)
    assert (state_of(refused).name, state_of(refused).failures) == ("stopped", 0)
    one, started = pool([refused], refuse)
    assert one.run()[refused.folder].name == "failed", "it is refused again, which counts again"
    assert (started, state_of(refused).reason) == ([refused.name], "natve")
    forget_failures(refused)
    one, _ = pool([refused], lambda cell: -9)
    state = one.run()[refused.folder]
    assert (state.name, state.failures) == ("failed", 2)
    assert state.reason.startswith("ended by signal 9"), "a start without a number has not the reason of an older one"
    forget_failures(refused)
    one, started = pool([refused], finish)
    assert one.run()[refused.folder].name == "done"
