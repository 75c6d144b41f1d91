"""Collects the facts of a node that need no torch: versions, host names, folders that should be shared."""

import hashlib
import os
import platform
import socket
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ftsys.cpus.openmp import THREADS
from ftsys.cpus.usable import Cores, usable_cores
from ftsys.files.paths import expanded
from ftsys.probe.protocol import TOKEN_SECONDS, Probe

LOOK_UP_SECONDS = 5.0
"""Time limit of one look-up of a name or an address."""

_TOKEN = ".ftsys-doctor-{token}-{probe}"


def machine_facts(packages: Iterable[str]) -> dict[str, Any]:
    """Return host name, Python, versions of the packages (None: not installed), a digest of our own sources, CPUs."""
    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "packages": {name: _version(name) for name in packages},
        "sources": _sources_digest(),
        "cpus": _cpu_facts(usable_cores(), os.environ),
    }


def _cpu_facts(cores: Cores, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return physical cores, logical CPUs, the cgroup's quota in CPUs (None: no limit), and OMP_NUM_THREADS."""
    threads = environ.get(THREADS, "")
    return {
        "cores": len(cores.physical),
        "cpus": sum(len(core) for core in cores.physical),
        "quota": cores.quota,
        "threads": int(threads) if threads.isdecimal() else None,
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _sources_digest() -> str:
    """Return 12 hex digits of a SHA-256 over the names and bytes of the Python files of ftsys and launcher."""
    top, digest = Path(__file__).parents[2], hashlib.sha256()
    for path in sorted(path for package in ("ftsys", "launcher") for path in (top / package).rglob("*.py")):
        digest.update(str(path.relative_to(top)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def put_tokens(probe: Probe) -> list[Path]:
    """Write this probe's token into the folders that nodes should share; return the files written.

    Report each folder's path, its error or None, and its free bytes. For a folder that does not exist yet, use the
    nearest existing folder above it.
    """
    written, report = [], {}
    for key, folder in _places(probe).items():
        path = folder / _name(probe, probe.number)
        facts: dict[str, Any] = {"folder": str(folder), "error": None, "free": None}
        try:
            path.write_text(probe.host, encoding="utf-8")
            written.append(path)
            space = os.statvfs(folder)
            facts["free"] = space.f_bavail * space.f_frsize
        except OSError as error:
            facts["error"] = error.strerror
        report[key] = facts
    probe.report("folders", report)
    return written


def _places(probe: Probe) -> dict[str, Path]:
    from ftsys.data.prepare import store_root

    run = probe.question.run
    folders = {"output_dir": expanded(run["output_dir"])}
    if "bundle" not in run:
        folders["data.store"] = store_root(run["data"]["store"])
    return {key: nearest_there(folder) for key, folder in folders.items()}


def nearest_there(folder: Path) -> Path:
    """Return the folder itself if it exists, else the nearest existing folder above it."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def seen_tokens(probe: Probe) -> dict[str, list[int]]:
    """Return, for each shared folder, the numbers of the probes whose token this node sees.

    It waits up to TOKEN_SECONDS for all tokens.
    """
    hosts = probe.question.hosts
    wanted = sorted({hosts.index(host) for host in hosts})
    places, end = _places(probe), time.monotonic() + TOKEN_SECONDS
    while True:
        seen = {key: [n for n in wanted if _is_there(place / _name(probe, n))] for key, place in places.items()}
        if all(found == wanted for found in seen.values()) or time.monotonic() > end:
            return seen
        time.sleep(0.1)


def _is_there(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as stream:  # open() makes a network file system refresh its cache
            return bool(stream.read())
    except OSError:
        return False


def take_tokens(written: Iterable[Path]) -> None:
    """Remove what `put_tokens` wrote."""
    for path in written:
        path.unlink(missing_ok=True)


def _name(probe: Probe, number: int) -> str:
    return _TOKEN.format(token=probe.question.token, probe=number)


def look_up_names(probe: Probe) -> dict[str, Any]:
    """Look up names, then the addresses found, each set in parallel; return addresses, seconds, or errors.

    Probe 0 looks up all nodes, because all nodes connect to it; the others look up probe 0 and themselves. `own` is
    this node's own host name.
    """
    question = probe.question
    wanted = dict.fromkeys(question.hosts if probe.number == 0 else (question.master, probe.host))
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
    """Runs one look-up in its own thread, because the C library's resolver has no time limit."""

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
        """Return the answer, or an error if there is none within LOOK_UP_SECONDS of the start."""
        self._thread.join(max(0.0, self._started + LOOK_UP_SECONDS - time.monotonic()))
        return self._answer


def _addresses(name: str) -> list[str]:
    return sorted({str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)})


def _name_of(address: str) -> str:
    """Return the name of an address, or the address itself without one; torch's store looks up the same."""
    return socket.getnameinfo((address, 0), 0)[0]
