"""Holds every time limit and polling interval of the launcher, in seconds.

Controller, agents and rank processes count on the order of these limits: each process must have ended its part before
the process above it gives up. `tests/unit/launcher/test_timeouts.py` states that order.
"""

# Before the ranks start

PREFLIGHT_SECONDS = 60.0
"""An agent answers the controller's preflight order within this time, or the start is refused. It covers the ssh or
srun connection, Python's start and a look at the machine."""

SSH_CONNECT_SECONDS = 10
"""ssh gives up on a host that does not answer (ConnectTimeout). Its own message then comes before PREFLIGHT_SECONDS."""

RENDEZVOUS_SECONDS = 120
"""torchrun waits so long for the other nodes: they import torch from a shared disk, some much slower than others."""

# After a rank failed: the three limits count from the same moment

AGENT_INTERRUPT_SECONDS = 6.0
"""The agent interrupts (SIGTERM) the ranks that are left. Until then they may leave by themselves, with their own
error: their watchdog needs some heartbeats to find out which rank failed."""

AGENT_KILL_SECONDS = 9.0
"""The agent kills the ranks that are left."""

CONTROLLER_GIVE_UP_SECONDS = 12.0
"""The controller no longer waits for agents. With CONTROLLER_CLOSE_SECONDS it stays below 15 s, which the README
promises."""

SWEEP_SECONDS = 2.0
"""The agent kills processes that the ranks left behind, for so long at most, before it reports its own end."""

KILL_AGAIN_SECONDS = 1.0
"""The agent repeats a kill at this interval while something is left."""

CONTROLLER_CLOSE_SECONDS = 2.0
"""The process that leads to an agent may end by itself for so long once its input is closed; then it is killed."""

# After a signal

SAVE_SECONDS = 60.0
"""The other ranks may save a checkpoint for so long once one rank has stopped with a checkpoint (exit status 75)."""

SAVE_KILL_SECONDS = 65.0
"""The agent kills the ranks that are left after SAVE_SECONDS and an interrupt."""

TORCHRUN_SHUTDOWN_SECONDS = 300
"""torchrun itself kills ranks so long after a signal. Its default of 30 s would cut a large checkpoint off. The agent's
limits come first."""

LAUNCHER_STOP_SECONDS = 2.0
"""torchrun may end by itself for so long after a signal that came before any rank started; then it is killed."""

SECOND_INTERRUPT_SECONDS = 1.0
"""A Ctrl-C that comes later than this after the first signal ends the ranks at once. An earlier one is the same
keypress, delivered twice."""

CONTROLLER_KILL_SECONDS = 5.0
"""The controller waits so long for agents after it told them to kill their ranks."""

# While ranks run: finding out that the other side is gone

HEARTBEAT_SECONDS = 5.0
"""Controller and agent send a heartbeat at this interval: a connection that carries nothing looks alive forever."""

SILENCE_SECONDS = 60.0
"""An agent behind ssh that hears nothing for so long counts as cut off. `ftlaunch` may be suspended for as long."""

SSH_ALIVE_SECONDS, SSH_ALIVE_COUNT = 5, 3
"""ssh asks the far side at this interval and ends after so many requests without an answer: a cut is found in 15 s."""

ORPHAN_SECONDS = 20.0
"""Ranks may save and leave for so long once nobody gives orders: the controller is gone, or their agent is."""

# Other commands

SLURM_COMMAND_SECONDS = 60
"""squeue, sbatch and scancel may take so long: longer than SLURM's own message timeout (10 s by default), so that its
error message comes first."""

SCONTROL_SECONDS = 30
"""`scontrol show hostnames` may take so long. It only expands a list and asks no other machine."""

DOCTOR_SECONDS = 26.0
"""All probes of `ftlaunch doctor` together, by default: with the command's own start it stays below 30 s, which the
README promises."""

PROBE_START_SECONDS = 4.0
"""The part of the doctor's time that is left for a probe's start (ssh, Python) and for the end of one that hangs."""

PROBE_LEAST_SECONDS = 1.0
"""A probe gets this time at least, however little `--seconds` leaves."""

# Polling intervals

AGENT_POLL_SECONDS = 0.05
CONTROLLER_POLL_SECONDS = 0.2
"""The controller looks at its signals and limits at this interval; reports wake it at once."""

RANK_POLL_SECONDS = 0.5
"""The process around a rank looks at its limit at this interval; output and signals wake it at once."""

TORCHRUN_POLL_SECONDS = 0.1
"""torchrun looks at its ranks at this interval (`--monitor-interval`); its default is also 0.1 s."""

KILL_POLL_SECONDS = 0.01
LOG_POLL_SECONDS = 1.0
"""`ftlaunch logs --follow` asks SLURM and reads the log at this interval."""
