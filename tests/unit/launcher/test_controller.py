"""How long it takes at most until everything has ended after a rank has failed, whatever the ranks do."""

from launcher import controller
from launcher.agent import __main__ as node


def test_every_rank_has_ended_fifteen_seconds_after_the_first_failure() -> None:
    assert node.LEAVE_SECONDS < node.KILL_SECONDS, "ranks may leave by themselves before they are killed"
    assert node.KILL_SECONDS < controller.LEAVE_SECONDS, "agents end their ranks before they are given up"
    assert controller.LEAVE_SECONDS + controller.CLOSE_SECONDS < 15


def test_the_ranks_have_time_to_judge_who_failed() -> None:
    from ftsys.train.fault_tolerance.heartbeat import BEAT_SECONDS
    from ftsys.train.fault_tolerance.watchdog import GRACE_BEATS

    assert (GRACE_BEATS + 1) * BEAT_SECONDS < node.LEAVE_SECONDS
