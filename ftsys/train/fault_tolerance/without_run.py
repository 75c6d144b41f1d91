"""Watches the ranks of a command that writes no run folder, in which one could read how it ended."""

from pathlib import Path

from ftsys.run_folder.status_writer import StatusWriter
from ftsys.train.fault_tolerance.signals import Interruption
from ftsys.train.fault_tolerance.watchdog import Watchdog


class _NoStatus(StatusWriter):
    """Writes no status.json: there is no run folder, or it is that of a run which has ended."""

    def __init__(self, phase: str) -> None:
        super().__init__(Path(), 0, phase)

    def write_for_rank_0(self, exit_status: int | None, reason: str) -> None:
        """Do nothing."""


def watchdog_without_run(phase: str, advice: str, most_silent: int | None = None) -> Watchdog:
    """Return a watchdog that ends all ranks when one is lost, and none because it takes long.

    `advice` ends the message about a lost rank; `most_silent` is as for `Heartbeat`.
    """
    return Watchdog(_NoStatus(phase), Interruption(), 0, advice=advice, most_silent=most_silent)
