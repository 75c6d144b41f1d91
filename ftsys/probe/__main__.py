"""Collects the facts of one node for `ftlaunch doctor`, before a run starts there: `python -m ftsys.probe NUMBER`.

It reads one line of JSON from standard input, the question (`ftsys.probe.protocol.Question`). It writes each group of
facts to standard output as one line of JSON, {"probe": 0, "group": "machine", "facts": {...}}, as soon as the group is
known, so that a later hang does not lose it.

The probe decides nothing, downloads nothing and leaves nothing behind. To test shared folders, it writes files of a
few bytes named .ftsys-doctor-*, and removes them at its end. One probe runs on each node. If a run has one node and
several ranks, a second probe runs on that node, which only takes part in the all-reduce.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from ftsys.probe.protocol import TOKEN_SECONDS, Probe, Question


def main(arguments: Sequence[str]) -> int:
    """Answer one question, then end the process with exit status 0."""
    out = _own_output()
    question = Question.read(sys.stdin.readline())
    # SIGALRM ends the process even if native code hangs, which no Python exception interrupts.
    signal.alarm(round(question.seconds) + 2)
    os.environ["HF_HUB_OFFLINE"] = "1"
    probe = Probe(int(arguments[0]), question, out)
    answer(probe)
    probe.report("end", {})
    # A normal exit of the interpreter would wait for name look-ups that never return.
    os._exit(0)


def _own_output() -> TextIO:
    """Return standard output for the facts only; redirect what libraries print there to standard error."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return out


def answer(probe: Probe) -> None:
    """Report all facts, first those that need no other node."""
    if probe.local_number:
        from ftsys.probe.collectives import meet

        meet(probe)
        return
    from ftsys.probe.host import look_up_names, machine_facts, put_tokens, take_tokens

    probe.report("machine", machine_facts(probe.question.packages))
    names = _in_background(lambda: probe.report("names", look_up_names(probe)))
    tokens = put_tokens(probe)
    met = False
    try:
        met = _with_other_nodes(probe)
        _local_facts(probe)
    finally:
        if not met:  # other probes may still look for the tokens
            time.sleep(min(TOKEN_SECONDS, probe.left))
        take_tokens(tokens)
    names.join(probe.left)


def _with_other_nodes(probe: Probe) -> bool:
    from ftsys.probe.collectives import device_facts, meet
    from ftsys.probe.host import seen_tokens

    probe.report("device", device_facts(probe))
    return meet(probe, between=lambda: probe.report("tokens", seen_tokens(probe)))


def _local_facts(probe: Probe) -> None:
    """Report the facts that take long on large data, last, so that the other probes do not wait for them."""
    from ftsys.probe.inputs import input_facts, lock_facts, store_facts

    probe.report("locks", lock_facts())
    _in_background(lambda: probe.report("inputs", input_facts(probe.question.run))).join(probe.left)
    _in_background(lambda: probe.report("store", store_facts(probe.question.run))).join(probe.left)


def _in_background(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
