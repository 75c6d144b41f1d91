"""Answers the scripts of slurm/: `python -m launcher.slurm.in_job QUESTION ARGUMENTS...` prints the answer.

The scripts set FTSYS_RUN_DIR once the run folder is known. Answers need no torch and take some tenths of a second,
but for `written`, which may wait for rank 0.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ftsys.config import load_run
from ftsys.console.printer import complain, show
from ftsys.cpus.usable import usable_cores
from ftsys.errors import BAD_INPUT, DONE, FAILED, NOT_OURS, STOPPED_EARLY, FtsysError, LaunchError
from ftsys.ranks import loopback_interface
from ftsys.run_folder.attempts import highest_attempt
from ftsys.run_folder.layout import LOGS
from ftsys.run_folder.status import exit_of_this_start, read_status_after_crash
from ftsys.run_folder.status_writer import correct_status
from launcher.host.cpu_affinity import assign_cores
from launcher.host.folders import current_folder
from launcher.host.network_interface import interface_towards
from launcher.host.ports import ephemeral_ports, free_port
from launcher.planner.world import check_slices, torch_is_for_cpus, visible_gpus
from launcher.timeouts import RANK_0_WRITES_SECONDS


def job(start: str, run_file: str, *overrides: str) -> str:
    """Return what the job needs before it starts, a line each: device, run folder, port, newest attempt of the run.

    `start`: "JOBID-RESTARTS", from which the port is derived. Raises ConfigError for a wrong run file or override, and
    LaunchError if torch is not installed, or not all GPUs of the allocation can be used.
    """
    folder = current_folder(os.environ) / load_run(run_file, overrides).output_dir
    port = free_port(f"slurm job {start}", ephemeral_ports())
    return "\n".join([_device(), str(folder), str(port), str(highest_attempt(folder))])


def _device() -> str:
    """Return FTSYS_DEVICE if it is set; else `cpu` if the installed torch supports nothing else.

    Raises LaunchError where SLURM gave GPUs that this torch would leave idle, or slices of GPUs for several ranks.
    """
    device = os.environ.get("FTSYS_DEVICE")
    if device not in (None, "cpu", "cuda"):
        raise LaunchError(f"FTSYS_DEVICE={device!r} is not a device: write cpu or cuda, or leave it out.")
    if device is None and torch_is_for_cpus() and (gpus := os.environ.get("SLURM_GPUS_ON_NODE", "0")) != "0":
        raise LaunchError(
            f"the allocation has {gpus} GPU(s) on this node, and the installed torch computes on CPUs alone: "
            "`make install TORCH=cuda`, or set FTSYS_DEVICE=cpu to compute on CPUs."
        )
    device = device or ("cpu" if torch_is_for_cpus() else "cuda")
    if device == "cuda":
        visible = visible_gpus(os.environ)
        check_slices(visible, ranks=len(visible))
    return device


def node(ranks: str, peer: str) -> str:
    """Return this node's threads for each rank, and the interface towards a peer; the loopback in a job of one node."""
    threads = assign_cores(usable_cores(), int(ranks), os.environ.get("FTSYS_DEVICE") == "cuda").threads
    alone = os.environ.get("SLURM_JOB_NUM_NODES") == "1"
    interface = loopback_interface() if alone else interface_towards(peer)
    return f"{threads} {interface or ''}".strip()


def written(before: str) -> str:
    """Return the exit status in status.json, if the attempt after attempt `before` wrote one; else nothing.

    It waits for an attempt that was begun: rank 0 may still be writing the reason.
    """
    folder, waited = _run_folder(), 0
    while (status := exit_of_this_start(folder, int(before))) is None and waited < RANK_0_WRITES_SECONDS:
        if highest_attempt(folder) != int(before) + 1:
            break
        time.sleep(1)
        waited += 1
    return "" if status is None else str(status)


def outcome(before: str, ended: str, asked: str = "") -> str:
    """Return the exit status that stands for a start of the ranks.

    `before`: the newest attempt before it. `ended`: exit status of the srun that started them. `asked`: not empty if
    SLURM asked the job to stop.
    """
    folder = _run_folder()
    told, status = exit_of_this_start(folder, int(before)), read_status_after_crash(folder)
    if told is None:  # the ranks refused the run, or were stopped before training, or were killed
        is_over = status.get("state") == "done"  # a finished run has nothing to do
        early = asked or (int(ended) == DONE and not is_over)
        return _refusal() or str(STOPPED_EARLY if early else ended)
    if told == STOPPED_EARLY and int(ended) != DONE and not asked and not status.get("step"):
        return str(FAILED)  # in start-up, torchrun stops the ranks when one is killed; later, all agree to stop
    return str(told)


def _refusal() -> str:
    """Return the exit status that a rank wrote when it refused its input; nothing if none did."""
    path = Path(os.environ.get("FTSYS_EXIT_FILE", ""))
    text = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    return text if text in (str(BAD_INPUT), str(NOT_OURS)) else ""


def failed(before: str, status: str) -> str:
    """Write into status.json that a start failed, where the ranks could not write it; the answer is empty."""
    folder = _run_folder()
    reason = f"a rank was killed: the ranks ended with status {status}, and none of them wrote a reason"
    correct_status(folder, int(before), int(status), f"{reason}. See the newest {folder / LOGS}/slurm-*.log.")
    return ""


def _run_folder() -> Path:
    return Path(os.environ["FTSYS_RUN_DIR"])


QUESTIONS: Mapping[str, Callable[..., str]] = {
    "job": job,
    "node": node,
    "written": written,
    "outcome": outcome,
    "failed": failed,
}


def main(arguments: list[str]) -> int:
    """Answer one question; returns 2, with a message, for what the user must correct."""
    try:
        if not arguments or arguments[0] not in QUESTIONS:
            raise LaunchError(f"{' '.join(arguments)!r} is not a question: ask one of {', '.join(QUESTIONS)}.")
        show(QUESTIONS[arguments[0]](*arguments[1:]))
    except FtsysError as error:
        complain(error)
        return BAD_INPUT
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
