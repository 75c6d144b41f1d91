"""Runs a peer in its own process: `python -m ftsys.bench.harness.worker SPEC`, started by `rounds`."""

import os
import sys

from ftsys.bench.harness.peers import Spec
from ftsys.bench.harness.turns import Channel, Pipe
from ftsys.cpus.openmp import settle_openmp
from ftsys.cpus.usable import usable_cores
from ftsys.errors import ConfigError


def main(spec: Spec, channel: Channel) -> None:
    """Send the peer's facts, then run blocks until there are no more orders."""
    if spec.cpus:  # before torch counts the CPUs
        os.sched_setaffinity(0, spec.cpus)
    if spec.recipe.how == "ours":  # as `ftsys train` does, before torch is imported
        settle_openmp(os.environ, usable_cores())
    if "RANK" in os.environ:
        from ftsys.distributed import stay_on_loopback

        stay_on_loopback()
    from ftsys.bench.harness.peer_loops import MODES

    try:
        MODES[spec.mode](spec, channel)
    except ConfigError as error:
        channel.answer({"wrong_input": str(error)})


if __name__ == "__main__":
    main(Spec.from_json(sys.argv[1]), Pipe())
