"""Starts virtual hosts on this machine: each with its address, host name, processes and sshd, and with shared files.

A host is a process in namespaces of its own, joined to a bridge by a pair of virtual interfaces. When it ends,
everything in it ends, and its interfaces go. Needs root, util-linux, iproute2 and openssh-server.
"""

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRAMS = ("ip", "unshare", "nsenter", "ssh", "ssh-keygen", "sshd", "mount")
UNSHARE = ("unshare", "--net", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
PATHS = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])

# Waits for the network, mounts the files that name the hosts, and then collects the exit statuses of its processes.
INIT = """
read go
set -e
hostname "$1"
for name in hosts nsswitch.conf ssh/ssh_config; do mount --bind "$2/etc/$name" "/etc/$name"; done
mount -t tmpfs tmpfs /dev/shm
if [ "$3" = sshd ]; then "$(command -v sshd || echo /usr/sbin/sshd)" -f "$2/etc/sshd_config"; fi
echo up
exec "$4" -c 'import os, time
while True:
    try: os.wait()
    except ChildProcessError: time.sleep(0.1)'
"""

SSHD = """Port 22
HostKey {folder}/etc/host_key
AuthorizedKeysFile {folder}/etc/key.pub
PidFile none
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
StrictModes no
"""

SSH = """Host *
  IdentityFile {folder}/etc/key
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  LogLevel ERROR
"""


def why_not() -> str | None:
    """Return why this machine cannot have virtual hosts, or None."""
    if os.geteuid() != 0:
        return "virtual hosts need root"
    missing = [name for name in PROGRAMS if shutil.which(name, path=PATHS) is None]
    if missing:
        return f"virtual hosts need {', '.join(missing)}: `make test-cluster` installs them on Debian"
    made = _call("unshare", "--net", "ip", "link", "add", "probe0", "type", "bridge", check=False)
    return f"no network namespaces here: {made.stderr.strip()}" if made.returncode else None


def _call(*words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(words, capture_output=True, text=True, check=check, env=os.environ | {"PATH": PATHS})


@dataclass
class Host:
    """A virtual host. `process` holds it; `pid` is the first process inside, seen from outside."""

    name: str
    address: str
    process: "subprocess.Popen[str]"
    pid: int
    link: str
    """Interface at the outer end of its connection to the bridge."""


@dataclass
class Network:
    """Hosts by name, and one bridge between them."""

    folder: Path
    number: int = field(default_factory=lambda: secrets.randbelow(64 * 256))
    """Part of names and addresses, so that several networks can exist on a machine."""
    hosts: dict[str, Host] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bridge = f"ft{self.number}"
        self._subnet = f"10.{64 + self.number % 64}.{self.number // 64}"

    def up(self, names: Sequence[str], without_sshd: Sequence[str] = ()) -> None:
        """Start hosts, which know each other by name. Hosts in `without_sshd` refuse every ssh."""
        addresses = {name: f"{self._subnet}.{10 + number}" for number, name in enumerate(names)}
        self._write_files(addresses)
        _call("ip", "link", "add", self.bridge, "type", "bridge")
        _call("ip", "link", "set", self.bridge, "up")
        for number, (name, address) in enumerate(addresses.items()):
            self.hosts[name] = self._boot(name, address, f"{self.bridge}v{number}", name not in without_sshd)

    def _write_files(self, addresses: dict[str, str]) -> None:
        etc = self.folder / "etc"
        (etc / "ssh").mkdir(parents=True)
        for name in ("key", "host_key"):
            _call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(etc / name))
        names = "".join(f"{address} {name}\n" for name, address in addresses.items())
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
        # Names come only from the file: a DNS look-up would wait ten seconds for each connection.
        (etc / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\n")
        (etc / "sshd_config").write_text(SSHD.format(folder=self.folder))
        (etc / "ssh/ssh_config").write_text(SSH.format(folder=self.folder))
        Path("/run/sshd").mkdir(exist_ok=True)

    def _boot(self, name: str, address: str, link: str, sshd: bool) -> Host:
        arguments = ["init", name, str(self.folder), "sshd" if sshd else "", sys.executable]
        process = subprocess.Popen(
            [*UNSHARE, "sh", "-c", INIT, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PATH": PATHS},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        pid = wait_for(lambda: _child(process.pid))
        host = self.hosts[name] = Host(name, address, process, pid, link)
        _call("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        _call("ip", "link", "set", link, "master", self.bridge, "up")
        for words in (
            ["addr", "add", f"{address}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
            ["link", "set", "lo", "up"],
        ):
            _call("nsenter", "-t", str(pid), "-n", "--", "ip", *words)
        process.stdin.write("go\n")
        process.stdin.close()
        assert process.stdout.readline() == "up\n", f"{name} did not come up"
        return host

    def inside(self, name: str, folder: Path) -> list[str]:
        """Return the prefix of a command that runs it on a host, in a folder."""
        enter = ["nsenter", "-t", str(self.hosts[name].pid), "-n", "-u", "-m", "-p", "--"]
        return [*enter, "sh", "-c", 'cd "$0" && exec "$@"', str(folder)]

    def sent_bytes(self, name: str) -> int:
        """Return the bytes that a host has sent to the others so far."""
        return int(Path(f"/sys/class/net/{self.hosts[name].link}/statistics/rx_bytes").read_text())

    def cut(self, name: str) -> None:
        """Cut a host off: packets are dropped, without an error to either side."""
        _call("ip", "link", "set", self.hosts[name].link, "down")

    def heal(self, name: str) -> None:
        """Connect a host again."""
        _call("ip", "link", "set", self.hosts[name].link, "up")

    def down(self) -> None:
        """End every host and all processes in it."""
        for host in self.hosts.values():
            host.process.kill()
            host.process.wait()
            if host.process.stdout is not None:
                host.process.stdout.close()
            _call("ip", "link", "del", host.link, check=False)
        self.hosts.clear()
        _call("ip", "link", "del", self.bridge, check=False)


def _child(pid: int) -> int | None:
    with suppress(OSError):
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(found[0]) if found else None
    return None


def wait_for(found: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Call `found` until it returns something true, and return that. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        if time.monotonic() > deadline:
            raise TimeoutError("nothing came")
        time.sleep(0.02)
    return answer
