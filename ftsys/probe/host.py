"""What a node can tell without torch: versions, names, folders that should be shared."""

import hashlib
import os
import platform
import socket
import sys
import threading
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from ftsys.probe.protocol import TOKEN_SECONDS, Seat

LOOK_UP_SECONDS = 5.0
"""How long a look-up of a name or address may take before it counts as unanswered."""

_TOKEN = ".ftsys-doctor-{token}-{seat}"


def machine_facts(packages: Iterable[str]) -> dict[str, Any]:
    """Host name, Python, versions of the packages (None: not installed), and a digest of this project's sources."""
    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "packages": {name: _version(name) for name in packages},
        "sources": _sources_digest(),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _sources_digest() -> str:
    """First 12 hex digits of a sha256 over the names and bytes of ftsys' and launcher's Python files."""
    top, digest = Path(__file__).parents[2], hashlib.sha256()
    for path in sorted(path for room in ("ftsys", "launcher") for path in (top / room).rglob("*.py")):
        digest.update(str(path.relative_to(top)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def put_tokens(seat: Seat) -> list[Path]:
    """Write this seat's token into the folders that nodes should share, and tell of each where it is and what is free.

    A folder that is not there yet stands for the nearest one above it that is. Returns the files.
    """
    written, told = [], {}
    for key, folder in _places(seat).items():
        path = folder / _name(seat, seat.number)
        facts: dict[str, Any] = {"folder": str(folder), "error": None, "free": None}
        try:
            path.write_text(seat.host, encoding="utf-8")
            written.append(path)
            room = os.statvfs(folder)
            facts["free"] = room.f_bavail * room.f_frsize
        except OSError as error:
            facts["error"] = error.strerror
        told[key] = facts
    seat.tell("folders", told)
    return written


def _places(seat: Seat) -> dict[str, Path]:
    from ftsys.data.prepare import store_root

    run = seat.question.run
    folders = {"output_dir": Path(run["output_dir"]).expanduser()}
    if "bundle" not in run:
        folders["data.store"] = store_root(run["data"]["store"])
    return {key: nearest_there(folder) for key, folder in folders.items()}


def nearest_there(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def seen_tokens(seat: Seat) -> dict[str, list[int]]:
    """Seats whose token is seen in each folder of this node; waits TOKEN_SECONDS for those that are late."""
    hosts = seat.question.hosts
    wanted = sorted({hosts.index(host) for host in hosts})
    places, end = _places(seat), time.monotonic() + TOKEN_SECONDS
    while True:
        seen = {key: [n for n in wanted if _is_there(place / _name(seat, n))] for key, place in places.items()}
        if all(found == wanted for found in seen.values()) or time.monotonic() > end:
            return seen
        time.sleep(0.1)


def _is_there(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as stream:  # opening is what makes a network file system look anew
            return bool(stream.read())
    except OSError:
        return False


def take_tokens(written: Iterable[Path]) -> None:
    """Remove what `put_tokens` wrote."""
    for path in written:
        path.unlink(missing_ok=True)


def _name(seat: Seat, number: int) -> str:
    return _TOKEN.format(token=seat.question.token, seat=number)


def look_up_names(seat: Seat) -> dict[str, Any]:
    """Look-ups of names and of the addresses they gave, all at once: addresses, seconds, or the error.

    Seat 0 looks up all nodes, for it hears from all; the others look up it and themselves. `own` is what this node's
    own host name means here.
    """
    question = seat.question
    wanted = dict.fromkeys(question.hosts if seat.number == 0 else (question.master, seat.host))
    forward = {name: _Lookup(_addresses, name) for name in (*wanted, question.master, socket.gethostname())}
    found = {name: lookup.facts() for name, lookup in forward.items()}
    addresses = {address for facts in found.values() for address in facts.get("answer", [])}
    back = {address: _Lookup(_name_of, address) for address in sorted(addresses)}
    return {
        "forward": found,
        "reverse": {address: lookup.facts() for address, lookup in back.items()},
        "own": socket.gethostname(),
    }


class _Lookup:
    """One question to the name service in a thread of its own: the C library gives no time limit."""

    def __init__(self, ask: Any, what: str) -> None:
        self._answer: dict[str, Any] = {"error": f"no answer within {LOOK_UP_SECONDS:g} s", "timed_out": True}
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._ask, args=(ask, what), daemon=True)
        self._thread.start()

    def _ask(self, ask: Any, what: str) -> None:
        try:
            answer = {"answer": ask(what)}
        except OSError as error:
            answer = {"error": error.strerror or str(error)}
        self._answer = answer | {"seconds": round(time.monotonic() - self._started, 3)}

    def facts(self) -> dict[str, Any]:
        """What was answered within LOOK_UP_SECONDS of the question."""
        self._thread.join(max(0.0, self._started + LOOK_UP_SECONDS - time.monotonic()))
        return self._answer


def _addresses(name: str) -> list[str]:
    return sorted({str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)})


def _name_of(address: str) -> str:
    """As torch's store asks for each connection: an address without a name is answered by itself."""
    return socket.getnameinfo((address, 0), 0)[0]
