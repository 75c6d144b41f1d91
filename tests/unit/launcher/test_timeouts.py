"""Tests the order of the launcher's time limits: each process ends its part before the one above it gives up."""

import re
from pathlib import Path

from launcher import timeouts as limits


def test_every_rank_has_ended_fifteen_seconds_after_the_first_failure() -> None:
    assert limits.AGENT_INTERRUPT_SECONDS < limits.AGENT_KILL_SECONDS, "an interrupted rank gets time to leave"
    agent_end = limits.AGENT_KILL_SECONDS + limits.SWEEP_SECONDS + limits.AGENT_POLL_SECONDS
    assert agent_end < limits.CONTROLLER_GIVE_UP_SECONDS, "agents have ended their ranks before they are given up"
    assert limits.CONTROLLER_GIVE_UP_SECONDS + limits.CONTROLLER_CLOSE_SECONDS < 15, "promised in the documentation"


def test_the_ranks_have_time_to_find_out_who_failed() -> None:
    from ftsys.train.fault_tolerance.heartbeat import HEARTBEAT_SECONDS
    from ftsys.train.fault_tolerance.watchdog import GRACE_HEARTBEATS

    assert (GRACE_HEARTBEATS + 1) * HEARTBEAT_SECONDS < limits.AGENT_INTERRUPT_SECONDS


def test_a_second_interrupt_is_over_before_the_controller_gives_up() -> None:
    assert limits.SWEEP_SECONDS + limits.AGENT_POLL_SECONDS < limits.CONTROLLER_KILL_SECONDS
    assert limits.CONTROLLER_KILL_SECONDS < limits.CONTROLLER_GIVE_UP_SECONDS, "it shortens what is left"


def test_torchrun_never_kills_ranks_before_the_agent_does() -> None:
    ends = (limits.AGENT_KILL_SECONDS, limits.SAVE_KILL_SECONDS, limits.ORPHAN_SECONDS)
    assert max(ends) < limits.TORCHRUN_SHUTDOWN_SECONDS


def test_ranks_that_save_get_more_time_than_ranks_that_fail() -> None:
    assert limits.AGENT_KILL_SECONDS < limits.ORPHAN_SECONDS <= limits.SAVE_SECONDS < limits.SAVE_KILL_SECONDS


def test_several_heartbeats_may_be_lost() -> None:
    assert 3 * limits.HEARTBEAT_SECONDS < limits.SILENCE_SECONDS
    cut = limits.SSH_ALIVE_SECONDS * limits.SSH_ALIVE_COUNT
    assert limits.HEARTBEAT_SECONDS < cut < limits.SILENCE_SECONDS, (
        "ssh finds a cut before the remote agent stops its ranks"
    )


def test_ssh_says_why_before_the_preflight_is_over() -> None:
    assert limits.SSH_CONNECT_SECONDS < limits.PREFLIGHT_SECONDS


def test_the_doctor_ends_within_thirty_seconds() -> None:
    assert limits.PROBE_START_SECONDS + limits.PROBE_LEAST_SECONDS < limits.DOCTOR_SECONDS < 30, (
        "promised in the documentation"
    )


def test_polling_is_faster_than_what_it_watches() -> None:
    assert limits.KILL_POLL_SECONDS < limits.SWEEP_SECONDS
    assert limits.AGENT_POLL_SECONDS < limits.KILL_AGAIN_SECONDS < limits.LAUNCHER_STOP_SECONDS
    assert limits.CONTROLLER_POLL_SECONDS < limits.SECOND_INTERRUPT_SECONDS < limits.CONTROLLER_CLOSE_SECONDS
    assert limits.RANK_POLL_SECONDS < limits.ORPHAN_SECONDS
    assert limits.TORCHRUN_POLL_SECONDS < limits.AGENT_INTERRUPT_SECONDS


def test_the_job_script_gives_torchrun_the_same_time(repository: Path) -> None:
    text = (repository / "slurm/node.sh").read_text()
    assert re.findall(r"--shutdown-timeout=(\d+)", text) == [str(limits.TORCHRUN_SHUTDOWN_SECONDS)]
