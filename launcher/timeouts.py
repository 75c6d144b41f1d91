"""Time limits of the launcher, in seconds."""

POLL_SECONDS = 0.05


LEAVE_SECONDS = 6.0
"""What ranks have to leave by themselves once one of them has failed; then they are interrupted."""


KILL_SECONDS = 9.0
"""When, after the first failure, whatever is left is killed. With all else it stays below 15 s on every node."""


STOP_SECONDS = 60.0
"""What the other ranks have once one has stopped with a checkpoint (75)."""


BEAT_SECONDS = 5.0
"""How often each side of an ssh says that it is there: a connection that carries nothing looks alive for ever."""


CUT_OFF_SECONDS = 20.0
"""What ranks have to save and leave once nobody gives orders any more."""
