"""One writer among any number of processes and nodes, by lease files; never flock, which some file systems ignore.

Leases of one thing are numbered files, `NAME.lease-1`, `NAME.lease-2` ...: the highest number holds it. A lease is
taken by making the next file with O_EXCL, so two takers of a stale lease cannot both win, and no taker ever has to
remove another's file. A holder whose number is no longer the highest has lost it and learns so at its next renewal.

Staleness is judged by the watcher's own monotonic clock (the file's content did not change for `stale` seconds), so
clocks of nodes need not agree; a holder on the same machine that is dead is seen at once.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

_T = TypeVar("_T")
_RECORD_BYTES = 512  # of constant size: a renewal overwrites in place and a reader never sees half a record's tail


@dataclass(frozen=True)
class LeaseTimes:
    """Seconds: between renewals, until an unrenewed lease is stale, between a waiter's looks."""

    renew: float = 5.0
    stale: float = 30.0
    poll: float = 0.1


class Lease:
    """A held lease; renewed by a daemon thread until `release`. Made by `hold_or_wait` or `LeaseWatch.try_take`."""

    def __init__(self, path: Path, descriptor: int, times: LeaseTimes) -> None:
        self.path, self.token = path, uuid.uuid4().hex
        self._descriptor, self._times, self._renewals = descriptor, times, 0
        self._ended, self._lost = threading.Event(), threading.Event()
        try:
            self._renew()
        except OSError:
            path.unlink()  # a full disk: nobody shall wait for a holder that never was
            os.close(descriptor)
            raise
        self._thread = threading.Thread(target=self._keep, name=f"lease {path.name}", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> bool:
        """Whether another process has taken over; what is written from then on may be written twice."""
        return self._lost.is_set() or not self._is_ours()

    def release(self) -> None:
        """Stop renewing and remove the files, unless another holds it by now."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        if self._is_ours():
            for number, path in generations(_base_of(self.path)):  # older ones first: the highest decides until the end
                if number <= _number_of(self.path):
                    path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def __enter__(self) -> "Lease":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _keep(self) -> None:
        while not self._ended.wait(self._times.renew):
            try:
                if not self._is_ours():
                    self._lost.set()
                    return
                self._renew()
            except OSError:  # a full disk or a network folder that went away: others will see it go stale
                self._lost.set()
                return

    def _renew(self) -> None:
        self._renewals += 1
        record = {**_identity(), "token": self.token, "renewals": self._renewals}
        os.pwrite(self._descriptor, json.dumps(record).encode().ljust(_RECORD_BYTES)[:_RECORD_BYTES], 0)
        os.fsync(self._descriptor)

    def _is_ours(self) -> bool:
        files = generations(_base_of(self.path))
        if not files or files[-1][1] != self.path:
            return False
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False


class LeaseWatch:
    """A waiter's memory: what the newest lease said and since when it has said so."""

    def __init__(self, base: Path, times: LeaseTimes) -> None:
        self.base, self.times = base, times
        self._seen: tuple[Path, bytes] | None = None
        self._since = 0.0

    def try_take(self) -> Lease | None:
        """Take the lease if nobody holds it or its holder is gone; None while somebody does. OSError as it comes."""
        files = generations(self.base)
        if files and not self._is_stale(files[-1][1]):
            return None
        path = Path(f"{self.base}.lease-{files[-1][0] + 1 if files else 1}")
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        except FileExistsError:
            return None
        return Lease(path, descriptor, self.times)

    def holder(self) -> str:
        """The newest lease's "host:pid", for people."""
        record = _parse(self._seen[1]) if self._seen else {}
        return f"{record.get('host', 'unknown')}:{record.get('pid', 'unknown')}"

    def _is_stale(self, path: Path) -> bool:
        try:
            content = path.read_bytes()  # opening is what makes a network file system look anew
        except FileNotFoundError:
            return False  # released between listing and reading: look again
        if (path, content) != self._seen:
            self._seen, self._since = (path, content), time.monotonic()
        return _is_dead_here(_parse(content)) or time.monotonic() - self._since >= self.times.stale


def hold_or_wait(
    base: Path, ready: Callable[[], _T | None], times: LeaseTimes, on_wait: Callable[[str], None] | None = None
) -> _T | Lease:
    """Return what `ready` gives as soon as it is not None, or the lease on `base` with the duty to make it ready.

    `on_wait` is called once, with the holder's "host:pid", if there is something to wait for.
    """
    watch, told = LeaseWatch(base, times), False
    while True:
        found = ready()
        if found is not None:
            return found
        lease = watch.try_take()
        if lease is not None:
            found = ready()  # the former holder may have finished since the look above
            if found is None:
                return lease
            lease.release()
            return found
        if on_wait is not None and not told:
            on_wait(watch.holder())
            told = True
        time.sleep(times.poll)


def generations(base: Path) -> list[tuple[int, Path]]:
    """The lease files of `base`, lowest number first."""
    prefix = f"{base.name}.lease-"
    with contextlib.suppress(FileNotFoundError):
        paths = [path for path in base.parent.iterdir() if path.name.startswith(prefix)]
        numbers = [path.name.removeprefix(prefix) for path in paths]
        return sorted((int(number), path) for number, path in zip(numbers, paths, strict=True) if number.isdigit())
    return []


def _base_of(path: Path) -> Path:
    return path.parent / path.name.rpartition(".lease-")[0]


def _number_of(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _identity() -> dict[str, object]:
    pid = os.getpid()
    return {"host": socket.gethostname(), **_machine(), "pid": pid, "started": _start_time(pid)}


def _machine() -> dict[str, str]:
    """What must be equal for a process id to mean the same process: this boot, and this container's process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return {"boot": boot, "processes": str(Path("/proc/self/ns/pid").readlink())}
    except OSError:  # not Linux: then only time tells
        return {"boot": "", "processes": ""}


def _start_time(pid: int) -> str | None:
    """The process's start in clock ticks since boot, which tells it from a later one of the same id; None: no more."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]


def _is_dead_here(record: dict[str, object]) -> bool:
    machine = _machine()
    if not machine["boot"] or any(record.get(key) != value for key, value in machine.items()):
        return False
    pid = record.get("pid")
    return isinstance(pid, int) and _start_time(pid) != record.get("started")


def _parse(content: bytes) -> dict[str, object]:
    """The record, or nothing where its maker has not written it yet."""
    try:
        record = json.loads(content)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}
