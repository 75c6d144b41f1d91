"""`python -m ftsys.probe SEAT`: the facts of one node for `ftlaunch doctor`, before anything is started there.

One line of JSON comes on standard input, the question (`probe_seat.Question`). Lines of JSON go to standard output, one
a group of facts, {"seat": 0, "group": "machine", "facts": {...}}, each as soon as it is known: what is known outlives a
hang.

The probe judges nothing, downloads nothing and leaves nothing behind: files of a few bytes that are to be seen from the
other nodes are named .ftsys-doctor-* and removed again. One probe runs on each node; where a run has one node and
several ranks, a second one sits beside the first and only takes part in the all-reduce.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from ftsys.probe.protocol import TOKEN_SECONDS, Question, Seat


def main(words: Sequence[str]) -> int:
    """Answer one question."""
    out = _own_output()
    question = Question.read(sys.stdin.readline())
    # Native code that hangs hears no exception; this ends the process whatever it does.
    signal.alarm(round(question.seconds) + 2)
    os.environ["HF_HUB_OFFLINE"] = "1"
    seat = Seat(int(words[0]), question, out)
    answer(seat)
    seat.tell("end", {})
    # Look-ups that never come back would be waited for by the interpreter's own end.
    os._exit(0)


def _own_output() -> TextIO:
    """Standard output for the facts alone; whatever libraries print there goes to standard error."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return out


def answer(seat: Seat) -> None:
    """Tell all facts, those first that need nobody else."""
    if seat.local:
        from ftsys.probe.collectives import meet

        meet(seat)
        return
    from ftsys.probe.host import look_up_names, machine_facts, put_tokens, take_tokens

    seat.tell("machine", machine_facts(seat.question.packages))
    names = _beside(lambda: seat.tell("names", look_up_names(seat)))
    tokens = put_tokens(seat)
    met = False
    try:
        met = _with_the_others(seat)
        _alone(seat)
    finally:
        if not met:  # others may still be looking for the tokens
            time.sleep(min(TOKEN_SECONDS, seat.left))
        take_tokens(tokens)
    names.join(seat.left)


def _with_the_others(seat: Seat) -> bool:
    from ftsys.probe.collectives import device_facts, meet
    from ftsys.probe.host import seen_tokens

    seat.tell("device", device_facts(seat))
    return meet(seat, between=lambda: seat.tell("tokens", seen_tokens(seat)))


def _alone(seat: Seat) -> None:
    """What takes long on large data, so that the others do not wait for it."""
    from ftsys.probe.inputs import input_facts, lock_facts, store_facts

    seat.tell("locks", lock_facts())
    _beside(lambda: seat.tell("inputs", input_facts(seat.question.run))).join(seat.left)
    _beside(lambda: seat.tell("store", store_facts(seat.question.run))).join(seat.left)


def _beside(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
