"""Worlds of gloo ranks that stay alive between tests: a start costs seconds, a call milliseconds.

`World(n).run(function, *args)` calls a module-level function in all n ranks and returns what each returned, by rank. A
rank that raises, dies or hangs fails the call with that rank's own traceback or stack; the world is then started afresh
on its next use, so one broken test spoils no other.
"""

import contextlib
import faulthandler
import gc
import os
import pickle
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.fork_server import fork_server, write_to

START_SECONDS = 120.0
COLLECTIVE_SECONDS = 60.0
GRACE_SECONDS = 3.0
LOG_CHARACTERS = 6000


class WorldError(AssertionError):
    """A rank raised, died or hung; the message holds the end of each rank's log."""


class World:
    """`size` forked gloo ranks on this machine, started on first use and kept until `close`."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._ranks: list[_Rank] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._store: Any = None

    def run(self, function: Callable[..., Any], *args: Any, timeout: float = 300.0) -> list[Any]:
        """Call `function(*args)` in every rank; returns the results by rank. Arguments and results must pickle.

        Raises WorldError when a rank raises, dies, or has not answered within `timeout` seconds.
        """
        if not self._ranks:
            self._start()
        order = pickle.dumps((function, args))
        for rank in self._ranks:
            rank.connection.send_bytes(order)
        return self._collect(timeout, getattr(function, "__name__", repr(function)))

    def close(self, grace: float = GRACE_SECONDS) -> None:
        """End every rank, killing those that do not leave within `grace` seconds. The next `run` starts anew."""
        for rank in self._ranks:
            rank.stop(grace)
        self._ranks, self._store = [], None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _start(self) -> None:
        from torch.distributed import TCPStore

        self._folder = tempfile.TemporaryDirectory(prefix="world-")
        # The parent owns the store on a port that the system chose: no port is found first and lost before its use.
        self._store = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
        folder = Path(self._folder.name)
        self._ranks = [_Rank(index, self.size, self._store.port, folder) for index in range(self.size)]
        self._collect(START_SECONDS, "start")

    def _collect(self, timeout: float, what: str) -> list[Any]:
        answers: dict[int, Any] = {}
        trouble = ""
        deadline = time.monotonic() + timeout
        while len(answers) < self.size:
            pending = {rank.connection: rank for rank in self._ranks if rank.index not in answers}
            ready = wait(list(pending), max(0.0, deadline - time.monotonic()))
            if not ready:
                raise self._failure(trouble or f"{what}: no answer within {timeout:g} s", hung=not trouble)
            for rank in [pending[connection] for connection in ready if isinstance(connection, Connection)]:
                try:
                    answers[rank.index] = pickle.loads(rank.connection.recv_bytes())
                except EOFError:
                    answers[rank.index] = None
                    trouble = trouble or f"{what}: rank {rank.index} raised or died"
                    # The others may wait for it in a collective: they get a moment to say so, then are ended.
                    deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        if trouble:
            raise self._failure(trouble, hung=False)
        return [answers[index] for index in range(self.size)]

    def _failure(self, what: str, hung: bool) -> WorldError:
        if hung:
            for rank in self._ranks:
                rank.dump_stack()
            time.sleep(0.5)
        logs = [f"--- rank {rank.index} ---\n{rank.log_end()}" for rank in self._ranks]
        self.close(grace=0)
        return WorldError("\n".join([what, *logs]))


class Worlds:
    """One world for each rank count, made when asked for, closed together."""

    def __init__(self) -> None:
        self._by_size: dict[int, World] = {}

    def get(self, size: int) -> World:
        """The world of `size` ranks."""
        return self._by_size.setdefault(size, World(size))

    def close(self) -> None:
        """End all ranks of all worlds."""
        for world in self._by_size.values():
            world.close()


class _Rank:
    """The parent's end of one worker process."""

    def __init__(self, index: int, size: int, port: int, folder: Path) -> None:
        self.index = index
        self._log = folder / f"rank-{index}.log"
        server = fork_server()
        self.connection, theirs = server.Pipe()
        self._process: BaseProcess = server.Process(
            target=_serve, args=(index, size, port, theirs, str(self._log)), daemon=True
        )
        self._process.start()
        theirs.close()

    def dump_stack(self) -> None:
        if self._process.pid is not None and self._process.is_alive():
            os.kill(self._process.pid, signal.SIGUSR1)

    def log_end(self) -> str:
        return self._log.read_text(errors="replace")[-LOG_CHARACTERS:] if self._log.exists() else ""

    def stop(self, grace: float) -> None:
        self.connection.close()
        self._process.join(grace)
        if self._process.is_alive() and self._process.pid is not None:
            # Its group, or what it had started (a compiler) would work on without it.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.join()


def _serve(rank: int, size: int, port: int, connection: Connection, log: str) -> None:
    """A worker's life: join the group, then call what it is sent until the parent hangs up.

    An exception ends the process, and its traceback reaches the parent through the log. Compiled extensions go to the
    world's own folder: a rank killed while one compiles would leave a lock that hangs every later user of the cache.
    """
    os.setpgid(0, 0)
    _redirect_output(log)
    os.environ["TORCH_EXTENSIONS_DIR"] = str(Path(log).parent / "extensions")
    environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in environment.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    import torch
    from torch import distributed

    torch.set_num_threads(1)
    store = distributed.TCPStore("127.0.0.1", port, None, False)
    distributed.init_process_group(
        "gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=COLLECTIVE_SECONDS)
    )
    connection.send_bytes(pickle.dumps("ready"))
    with contextlib.suppress(EOFError):
        while True:
            function, args = pickle.loads(connection.recv_bytes())
            with _own_state():
                answer = pickle.dumps(function(*args))
            connection.send_bytes(answer)
    # The parent is gone or has closed the world; destroying the group would wait for ranks that have left already.
    sys.stdout.flush()
    os._exit(0)


def _redirect_output(log: str) -> None:
    write_to([Path(log)])
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)


@contextlib.contextmanager
def _own_state() -> Iterator[None]:
    """Give a function the process as a fresh one would be: environment, seeds, and the libraries' singletons."""
    environment = dict(os.environ)
    torch = sys.modules["torch"]
    torch.manual_seed(0)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        torch.set_default_dtype(torch.float32)
        if "accelerate.state" in sys.modules:
            sys.modules["accelerate.state"].AcceleratorState._reset_state(reset_partial_state=True)
            sys.modules["accelerate.state"].GradientState._reset_state()
        if "transformers.integrations.deepspeed" in sys.modules:
            sys.modules["transformers.integrations.deepspeed"].unset_hf_deepspeed_config()
        gc.collect()
