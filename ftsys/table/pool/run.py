"""Trains the cells of a table, as many at a time as there are slots. Any number of processes may do so at once."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ftsys.errors import BAD_INPUT, DONE, NOT_OURS, STOPPED_EARLY, RunFolderError, StoppedEarly, is_of_signal
from ftsys.files.lease import Lease, LeaseTimes, LeaseWatch
from ftsys.files.storage_errors import storage_errors
from ftsys.run_folder.attempts import highest_attempt
from ftsys.table.cells import Cell
from ftsys.table.pool.process import Process, start_cell, stop_all
from ftsys.table.pool.progress import PoolProgress
from ftsys.table.pool.slots import Slot
from ftsys.table.state import CellState, lease_base, note_failure, refused, state_of

POLL_SECONDS = 0.1
RETRY_SECONDS = 1.0
"""Time between two looks at a cell that another process trains."""


@dataclass
class Running:
    """A cell that this process trains in a slot. `before` is the newest attempt before its start."""

    cell: Cell
    slot: Slot
    process: Process
    lease: Lease
    before: int


@dataclass
class Pool:
    """Trains `cells` in `slots`, in the given order; a cell whose model comes from another one waits for it.

    `states` holds each cell's last known state, by its run folder.
    """

    cells: Sequence[Cell]
    slots: Sequence[Slot]
    progress: PoolProgress
    wanted_to_stop: Callable[[], bool]
    start: Callable[[Cell, Slot], Process] = start_cell
    states: dict[Path, CellState] = field(default_factory=dict)
    running: list[Running] = field(default_factory=list)
    _watches: dict[Path, LeaseWatch] = field(default_factory=dict)
    _not_before: dict[Path, float] = field(default_factory=dict)
    _left: set[Path] = field(default_factory=set)
    """Run folders of cells that were stopped from outside or refused: they are left to the next start."""

    def run(self) -> Mapping[Path, CellState]:
        """Train until every cell is done, has failed, was stopped or refused; returns the states by run folder.

        Raises StoppedEarly once all runs have saved, after a signal; StorageError; and RunFolderError.
        """
        self.states = {cell.folder: state_of(cell) for cell in self.cells}
        try:
            while self._open_cells() or self.running:
                self._reap()
                if self.wanted_to_stop():
                    raise StoppedEarly("stopped by a signal; every run has saved: the same command goes on.")
                self._fill()
                self.progress.update(self.states, [(one.cell, one.slot) for one in self.running])
                time.sleep(POLL_SECONDS)
        finally:
            self._end()
        return self.states

    def _open_cells(self) -> list[Cell]:
        """Return the cells that may still be trained, by this process or by another."""
        return [cell for cell in self.cells if not self._is_over(cell)]

    def _is_over(self, cell: Cell) -> bool:
        over = self.states[cell.folder].is_settled or cell.folder in self._left
        return over or (cell.needs is not None and self._can_not_start(cell.needs))

    def _can_not_start(self, needs: Path) -> bool:
        """Return True if the cell to start from will give no model: it failed or was stopped."""
        return needs in self._left or (needs in self.states and self.states[needs].name == "failed")

    def _fill(self) -> None:
        """Start a cell in each free slot."""
        taken = {one.cell.folder for one in self.running}
        free = [slot for slot in self.slots if slot.number not in {one.slot.number for one in self.running}]
        for cell in self._open_cells() if free else ():
            if free and cell.folder not in taken and self._is_ready(cell) and self._try(cell, free[0]):
                free.pop(0)

    def _is_ready(self, cell: Cell) -> bool:
        """Return True if the model to start from is there, and no other process was just seen to train the cell."""
        waits = time.monotonic() < self._not_before.get(cell.folder, 0.0)
        return not waits and (cell.needs is None or self.states[cell.needs].name == "done")

    def _try(self, cell: Cell, slot: Slot) -> bool:
        """Start a cell unless another process trains it or has just done so."""
        with storage_errors(cell.folder):
            cell.folder.mkdir(parents=True, exist_ok=True)
            watch = self._watches.setdefault(cell.folder, LeaseWatch(lease_base(cell), LeaseTimes()))
            lease = watch.try_take()
        if lease is None:
            self._not_before[cell.folder] = time.monotonic() + RETRY_SECONDS
            self.states[cell.folder] = CellState("running", self.states[cell.folder].failures)
            return False
        try:
            self.states[cell.folder] = state = state_of(cell, ours=True)
            before = highest_attempt(cell.folder)
            process = None if state.is_settled else self.start(cell, slot)
        except BaseException:  # Ctrl-C too: a lease that is not given back would hold up every other process
            lease.release()
            raise
        if process is None:
            lease.release()
            return False
        self.running.append(Running(cell, slot, process, lease, before))
        self.progress.started(cell, slot)
        return True

    def _reap(self) -> None:
        """Take note of the processes that have ended."""
        for one in list(self.running):
            status = one.process.poll()
            if status is not None:
                self.running.remove(one)
                self._note(one.cell, status, one.before)
                one.lease.release()

    def _note(self, cell: Cell, status: int, before: int) -> None:
        # A signal to all processes may end a run that cannot handle it yet: that is no failure.
        stopped = status == STOPPED_EARLY or (self.wanted_to_stop() and is_of_signal(status))
        if stopped or status == NOT_OURS:
            self._left.add(cell.folder)
        elif status != DONE:
            note_failure(cell.folder, status)
        try:
            self.states[cell.folder] = state_of(cell, ours=True)
        except RunFolderError:
            if status not in (BAD_INPUT, NOT_OURS):
                raise
        taken_over = highest_attempt(cell.folder) > before + 1 or self.states[cell.folder].name == "done"
        if status == NOT_OURS and not taken_over:
            self.states[cell.folder] = refused(cell)
        self.progress.ended(cell, self.states[cell.folder], status)

    def _end(self) -> None:
        stop_all(one.process for one in self.running)
        for one in self.running:
            one.lease.release()
        self.running.clear()
