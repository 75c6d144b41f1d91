"""What the scripts of slurm/ ask Python for: `python -m launcher.slurm.in_job QUESTION WORDS...` prints the answer.

The run folder is FTSYS_RUN_DIR once it is known. Answers come without torch, in some tenths of a second.
"""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from ftsys.config import load_run
from ftsys.errors import BAD_INPUT, FtsysError, LaunchError
from ftsys.run_folder.status import exit_of_this_start, newest_attempt
from launcher.host.cpu_affinity import share_cores, usable_cores
from launcher.host.network_interface import interface_towards
from launcher.host.ports import ephemeral_ports, free_port
from launcher.planner.world import torch_is_for_cpus


def job(life: str, run_file: str, *overrides: str) -> str:
    """What the job is to know before it starts, a line each: device, run folder, port, the run's newest attempt so far.

    Raises ConfigError for a run file or an override that is wrong, LaunchError where there is no torch.
    """
    folder = Path(load_run(run_file, overrides).output_dir).absolute()
    port = free_port(f"slurm job {life}", ephemeral_ports())
    return "\n".join([_device(), str(folder), str(port), str(newest_attempt(folder))])


def _device() -> str:
    """FTSYS_DEVICE where it is set; else `cpu` where the installed torch can do no other."""
    asked = os.environ.get("FTSYS_DEVICE")
    if asked not in (None, "cpu", "cuda"):
        raise LaunchError(f"FTSYS_DEVICE={asked!r} is no device: write cpu or cuda, or leave it out.")
    return asked or ("cpu" if torch_is_for_cpus() else "cuda")


def seat(ranks: str, peer: str) -> str:
    """Threads of each rank of this node, and the interface that leads to a peer; only threads where there is none."""
    threads = share_cores(usable_cores(), int(ranks), os.environ.get("FTSYS_DEVICE") == "cuda").threads
    return f"{threads} {interface_towards(peer) or ''}".strip()


def outcome(before: str) -> str:
    """The exit status in status.json, if a life after attempt `before` wrote one; else nothing."""
    status = exit_of_this_start(Path(os.environ["FTSYS_RUN_DIR"]), int(before))
    return "" if status is None else str(status)


QUESTIONS: Mapping[str, Callable[..., str]] = {"job": job, "seat": seat, "outcome": outcome}


def main(words: list[str]) -> int:
    """Answer one question; returns 2 for what the user must correct, said in one message."""
    try:
        if not words or words[0] not in QUESTIONS:
            raise LaunchError(f"{' '.join(words)!r} is no question: ask one of {', '.join(QUESTIONS)}.")
        print(QUESTIONS[words[0]](*words[1:]))
    except FtsysError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
