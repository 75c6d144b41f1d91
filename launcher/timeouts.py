"""Holds every time limit and polling interval of the launcher, in seconds.

Controller, agents and the processes around the ranks count on the order of these limits: each process must have
ended its part before the process above it gives up. `tests/unit/launcher/test_timeouts.py` states that order.
"""

# Before the ranks start

PREFLIGHT_SECONDS = 60.0
"""Limit for an agent's answer to the preflight order. It covers the ssh or srun connection, Python's start and the
checks of the machine."""

WORDS_SECONDS = 5.0
"""Time without the agents' answer after which the words of srun or ssh are passed on, such as why it waits."""

SSH_CONNECT_SECONDS = 10
"""Limit for ssh to connect to a host (ConnectTimeout). So ssh's own error message comes before PREFLIGHT_SECONDS."""

RENDEZVOUS_SECONDS = 120
"""Limit for torchrun to wait for the other nodes: each imports torch first, and one may have a slow disk."""

# After a rank failed: the first three limits count from the same moment

AGENT_INTERRUPT_SECONDS = 6.0
"""Time until the agent interrupts (SIGTERM) the ranks that are left. Before, they may leave by themselves, with their
own error: their watchdog needs some heartbeats to find out which rank failed."""

AGENT_KILL_SECONDS = 9.0
"""Time until the agent kills the ranks that are left."""

CONTROLLER_GIVE_UP_SECONDS = 12.0
"""Time until the controller no longer waits for agents. With CONTROLLER_CLOSE_SECONDS it stays below the 15 s that the
documentation promises."""

SWEEP_SECONDS = 2.0
"""Limit for the agent to kill processes that the ranks left behind, before it reports its own end."""

KILL_AGAIN_SECONDS = 1.0
"""Interval at which the agent repeats a kill while a rank is left."""

CONTROLLER_CLOSE_SECONDS = 2.0
"""Limit for the process that leads to an agent to end once its input is closed; then the controller kills it."""

# After a rank is done

LAST_RANKS_SECONDS = 1800.0
"""Time for the other ranks to end once one has ended with 0: rank 0 may still write large results. Then they leave as
after a failure."""

# After a signal

SAVE_SECONDS = 60.0
"""Time for the other ranks to save a checkpoint once one rank has stopped with a checkpoint (exit status 75). Then the
agent interrupts them."""

SAVE_KILL_SECONDS = 65.0
"""Time, from the same moment as SAVE_SECONDS, until the agent kills the ranks that are left."""

TORCHRUN_SHUTDOWN_SECONDS = 300
"""Time until torchrun itself kills ranks after a signal. Its default of 30 s would interrupt the save of a large
checkpoint. The agent's limits come first."""

LAUNCHER_STOP_SECONDS = 2.0
"""Limit for torchrun to end after a signal that came before any rank started; then the agent kills it."""

SECOND_INTERRUPT_SECONDS = 1.0
"""Shortest time between the first signal and a Ctrl-C that kills the ranks. An earlier Ctrl-C is the same keypress,
delivered twice."""

CONTROLLER_KILL_SECONDS = 5.0
"""Limit for the agents to end after such a second Ctrl-C; then the controller gives them up."""

# While ranks run: noticing that the other side is gone

HEARTBEAT_SECONDS = 5.0
"""Interval of heartbeats between controller and agents: a connection that carries nothing looks alive forever."""

SILENCE_SECONDS = 60.0
"""Time without any order after which an agent behind ssh counts as cut off. A suspended `ftlaunch` is silent too."""

SSH_ALIVE_SECONDS, SSH_ALIVE_COUNT = 5, 3
"""Interval at which ssh asks the remote side, and number of requests without an answer after which it ends: 15 s."""

ORPHAN_SECONDS = 20.0
"""Time for ranks to save and leave when nobody gives orders any more: the controller is gone, or their agent is."""

# Other commands

SLURM_COMMAND_SECONDS = 60
"""Limit for squeue, sbatch and scancel. SLURM's own message timeout (10 s by default) is shorter, so that its error
message comes first."""

SCONTROL_SECONDS = 30
"""Limit for `scontrol show hostnames`, which only expands a list and asks no other machine."""

DOCTOR_SECONDS = 26.0
"""Default limit for all probes of `ftlaunch doctor` together. With the command's own start it stays below the 30 s that
the documentation promises."""

DOCTOR_MOST_SECONDS = 3600.0
"""Longest limit that may be asked for with `--seconds`."""

LAST_OUTPUT_SECONDS = 2.0
"""Limit for the last output of a probe that was killed: what it started, such as ssh's master, may hold the pipes."""

RANK_0_WRITES_SECONDS = 15
"""Limit for rank 0 to write why a run failed, counted in a SLURM job from the end of another node's torchrun."""

PROBE_START_SECONDS = 4.0
"""Part of the doctor's time that is kept for the probes' start (ssh, Python) and for the end of probes that hang."""

PROBE_LEAST_SECONDS = 1.0
"""Shortest time that a probe gets, however small `--seconds` is."""

# Polling intervals

AGENT_POLL_SECONDS = 0.05
"""Interval at which the agent checks its limits and torchrun; orders and ranks wake it at once."""

CONTROLLER_POLL_SECONDS = 0.2
"""Interval at which the controller checks its signals and limits; reports wake it at once."""

RANK_POLL_SECONDS = 0.5
"""Interval at which the process around a rank checks its limit; output and signals wake it at once."""

TORCHRUN_POLL_SECONDS = 0.1
"""Interval at which torchrun checks its ranks (`--monitor-interval`)."""

KILL_POLL_SECONDS = 0.01
"""Interval at which the agent looks for processes that are left while it kills them."""

LOG_POLL_SECONDS = 1.0
"""Interval at which `ftlaunch logs --follow` asks SLURM and reads the log."""
