"""Selects one writer among any number of processes and nodes with lease files. Some file systems ignore flock.

The leases on one path are numbered files, `NAME.lease-1`, `NAME.lease-2` ...: the file with the highest number is the
valid one. A process takes a lease by making the next file with O_EXCL. So two processes cannot both take over a stale
lease, and no process has to remove the file of another one. A holder whose number is no longer the highest has lost the
lease; it finds this out at its next renewal.

A lease is stale if its content has not changed for `stale` seconds on the waiting process's own monotonic clock, so the
clocks of the nodes need not agree. A dead holder on the same machine is detected at once.
"""

import contextlib
import json
import os
import socket
import stat
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from ftsys.errors import ConfigError
from ftsys.files.untrusted import file_bytes, json_object

_T = TypeVar("_T")
_RECORD_BYTES = 512  # constant, so that a renewal overwrites the record in place and leaves no rest of a longer one


@dataclass(frozen=True)
class LeaseTimes:
    """Times in seconds: between renewals, until a lease without renewal is stale, and between two polls."""

    renew: float = 5.0
    stale: float = 30.0
    poll: float = 0.1


class Lease:
    """Holds a lease: a daemon thread renews it until `release`. Made by `hold_or_wait` and `LeaseWatch.try_take`."""

    def __init__(self, path: Path, descriptor: int, times: LeaseTimes) -> None:
        self.path, self.token = path, uuid.uuid4().hex
        self._descriptor, self._times, self._renewals = descriptor, times, 0
        self._ended, self._lost = threading.Event(), threading.Event()
        try:
            self._renew()
        except OSError:
            path.unlink()  # a full disk: no process must wait for a lease that was never held
            os.close(descriptor)
            raise
        self._thread = threading.Thread(target=self._keep, name=f"lease {path.name}", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> bool:
        """True if another process has taken the lease over, so that two processes may write at the same time."""
        return self._lost.is_set() or not self._is_ours()

    def release(self) -> None:
        """Stop renewing, and remove the lease files unless another process holds the lease now."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        if self._is_ours():
            for number, path in generations(
                _base_of(self.path)
            ):  # older ones first: the file with the highest number stays valid until the end
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
            except OSError:  # a full disk or a lost network folder: the lease becomes stale for the others
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
    """Watches a lease for one waiting process: stores the newest lease's content and the time of its last change."""

    def __init__(self, base: Path, times: LeaseTimes) -> None:
        self.base, self.times = base, times
        self._seen: tuple[Path, bytes] | None = None
        self._since = 0.0

    def try_take(self) -> Lease | None:
        """Take the lease if no process holds it or it is stale; else return None.

        OSError is passed on. Raises ConfigError for a folder, a link, a pipe or a device in the place of a lease.
        """
        files = _checked_generations(self.base)
        if files and not self._is_stale(files[-1][1]):
            return None
        path = Path(f"{self.base}.lease-{files[-1][0] + 1 if files else 1}")
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        except FileExistsError:
            return None
        return Lease(path, descriptor, self.times)

    def holder(self) -> str:
        """Return "host:pid" of the newest lease, for messages."""
        record = _parse(self._seen[1]) if self._seen else {}
        return f"{record.get('host', 'unknown')}:{record.get('pid', 'unknown')}"

    def _is_stale(self, path: Path) -> bool:
        try:
            content = _content(path)  # opening the file makes a network file system refresh its cache
        except FileNotFoundError:
            return False  # released between listing and reading: the next poll decides
        if (path, content) != self._seen:
            self._seen, self._since = (path, content), time.monotonic()
        return _is_dead_here(_parse(content)) or time.monotonic() - self._since >= self.times.stale


def hold_or_wait(
    base: Path, ready: Callable[[], _T | None], times: LeaseTimes, on_wait: Callable[[str], None] | None = None
) -> _T | Lease:
    """Wait for the result of `ready`, or take the lease on `base`; the caller must then produce the result.

    Returns what `ready` returns as soon as that is not None, or else the lease. `on_wait` is called once, with the
    holder's "host:pid", if another process holds the lease.
    """
    watch, announced = LeaseWatch(base, times), False
    while True:
        found = ready()
        if found is not None:
            return found
        lease = watch.try_take()
        if lease is not None:
            found = ready()  # the former holder may have finished since the check above
            if found is None:
                return lease
            lease.release()
            return found
        if on_wait is not None and not announced:
            on_wait(watch.holder())
            announced = True
        time.sleep(times.poll)


def generations(base: Path) -> list[tuple[int, Path]]:
    """List the lease files of `base`, lowest number first."""
    prefix = f"{base.name}.lease-"
    with contextlib.suppress(FileNotFoundError):
        paths = [path for path in base.parent.iterdir() if path.name.startswith(prefix)]
        numbers = [path.name.removeprefix(prefix) for path in paths]
        found = [pair for pair in zip(numbers, paths, strict=True) if pair[0].isascii() and pair[0].isdigit()]
        return sorted((int(number), path) for number, path in found)
    return []


def _checked_generations(base: Path) -> list[tuple[int, Path]]:
    """List the lease files as `generations` does. Raises ConfigError for a folder, a link, a pipe or a device.

    No process that takes a lease makes one of them, so nobody would ever release it.
    """
    files = generations(base)
    for _, path in files:
        with contextlib.suppress(FileNotFoundError):  # released since it was listed
            if not stat.S_ISREG(path.lstat().st_mode):
                raise ConfigError(f"{str(path)!r} is no file, so no process can hold it as a lease: remove it.")
    return files


def _content(path: Path) -> bytes:
    """Return the record of a lease; nothing for a file that is too large for one. Raises OSError."""
    try:
        return file_bytes(path)
    except ValueError:
        return b""


def seems_held(base: Path) -> bool:
    """Return True if a lease file of `base` is there whose holder is not known to be dead, as far as one look tells.

    Raises ConfigError as `LeaseWatch.try_take` does.
    """
    files = _checked_generations(base)
    try:
        return bool(files) and not _is_dead_here(_parse(_content(files[-1][1])))
    except FileNotFoundError:
        return False


def _base_of(path: Path) -> Path:
    return path.parent / path.name.rpartition(".lease-")[0]


def _number_of(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _identity() -> dict[str, object]:
    pid = os.getpid()
    return {"host": socket.gethostname(), **_machine(), "pid": pid, "started": _start_time(pid)}


def _machine() -> dict[str, str]:
    """Return boot id and process namespace: only if both are equal does a process id mean the same process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return {"boot": boot, "processes": str(Path("/proc/self/ns/pid").readlink())}
    except OSError:  # not Linux: a dead holder is then detected by time only
        return {"boot": "", "processes": ""}


def _start_time(pid: int) -> str | None:
    """Return the process's start in clock ticks since boot; None if it has ended. A reused id has another start."""
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
    """Parse a lease's record; {} if the holder has not written it yet."""
    try:
        return json_object(content)
    except ValueError:
        return {}
