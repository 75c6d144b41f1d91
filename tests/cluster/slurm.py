"""Starts a real SLURM cluster of virtual hosts: slurmctld and munged on one, slurmd on each of the others.

Debian's packages are enough. Each node claims more cores than the machine has, so that several jobs fit a node, and
GPUs that are character devices: SLURM hands them out like real ones, and nobody can compute on them.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.hosts import PATHS, Network, wait_for
from tests.cluster.hosts import why_not as why_no_hosts

CONTROLLER = "controller"
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel", "munged")
NODES = {"node1": 8, "node2": 8, "node3": 8, "node4": 4}
"""Name -> GPUs that the node claims."""

ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

NULL_DEVICE = os.makedev(1, 3)

# The waits are as short as possible: with SLURM's defaults a requeued job starts again after two minutes (cred_expire),
# and a dead node is noticed after five.
CONF = """ClusterName=test
SlurmctldHost={controller}({address})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
SlurmdTimeout=15
MessageTimeout=5
TCPTimeout=2
KillWait=30
MinJobAge=3600
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Return why this machine cannot have a SLURM cluster, or None."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=PATHS) is None]
    if missing:
        return f"a SLURM cluster needs {', '.join(missing)}: `make test-cluster` installs them on Debian, as root"
    return why_no_hosts()


@dataclass
class Cluster:
    """A controller and nodes. `folder` holds everything that the daemons write."""

    folder: Path
    network: Network = field(init=False)
    daemons: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def scratch(self) -> Path:
        """Return the nodes' TMPDIR. All nodes share it: they are one machine."""
        return self.folder / "tmp"

    def up(self) -> None:
        """Start everything; returns when all nodes wait for jobs."""
        self.network = Network(self.folder / "network")
        self.network.folder.mkdir()
        names = [CONTROLLER, *NODES]
        self.network.up(names, without_sshd=names)
        self._write_files()
        munge = ["munged", "--foreground", "--force", f"--key-file={self.folder}/munge/key"]
        munge += [f"--{name}={self.folder}/munge/{name.split('-')[0]}" for name in ("socket", "pid-file", "log-file")]
        self._start(CONTROLLER, "munged", [*munge, f"--seed-file={self.folder}/munge/seed"])
        wait_for((self.folder / "munge/socket").exists)
        self._start(CONTROLLER, "slurmctld", ["slurmctld", "-D", "-i"])
        wait_for(lambda: " is UP" in self.call("scontrol", "ping", check=False).stdout)
        for name in NODES:
            self.start_node(name)
        wait_for(lambda: self.call("sinfo", "-h", "-t", "idle", "-o", "%D").stdout.strip() == str(len(NODES)))

    def _write_files(self) -> None:
        for name in ("munge", "state", "dev", "tmp", *(f"spool/{name}" for name in NODES)):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "munge/key").write_bytes(os.urandom(128))
        (self.folder / "munge/key").chmod(0o400)
        for number in range(max(NODES.values())):
            os.mknod(self.folder / f"dev/gpu{number}", 0o666 | 0o020000, NULL_DEVICE)
        hosts = self.network.hosts
        nodes = [
            f"NodeName={name} NodeAddr={hosts[name].address} CPUs=64 RealMemory=8000 Gres=gpu:{gpus} State=UNKNOWN"
            for name, gpus in NODES.items()
        ]
        text = CONF.format(
            controller=CONTROLLER, address=hosts[CONTROLLER].address, folder=self.folder, nodes="\n".join(nodes)
        )
        (self.folder / "slurm.conf").write_text(text)
        gpus_of = [f"NodeName={name} Name=gpu File={self.folder}/dev/gpu[0-{gpus - 1}]" for name, gpus in NODES.items()]
        (self.folder / "gres.conf").write_text("\n".join(gpus_of) + "\n")

    def _start(self, host: str, name: str, command: list[str]) -> None:
        with (self.folder / f"{name}.out").open("ab") as output:
            self.daemons[name] = subprocess.Popen(
                [*self.network.inside(host, self.folder), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment(),
            )

    def start_node(self, name: str) -> None:
        """Start a node's slurmd."""
        self._start(name, f"slurmd-{name}", ["slurmd", "-D", "-N", name])

    def environment(self, environ: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment of a user's shell on the cluster."""
        own = {"FTSYS_VENV": sys.prefix, "FTSYS_HOME": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
        slurm = {"PATH": PATHS, "SLURM_CONF": str(self.folder / "slurm.conf"), "TMPDIR": str(self.scratch)}
        return os.environ | own | slurm | dict(environ or {})

    def call(
        self, *words: str, cwd: Path | None = None, environ: Mapping[str, str] | None = None, check: bool = True
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command on the controller, as on a login node."""
        command = [*self.network.inside(CONTROLLER, cwd or self.folder), *words]
        shell = self.environment(environ)
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env=shell, check=check)

    def submit(self, *words: str, cwd: Path, environ: Mapping[str, str] | None = None) -> str:
        """Run `sbatch` in a folder; returns the job's number."""
        return self.call("sbatch", "--parsable", *words, cwd=cwd, environ=environ).stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """Return SLURM's fields of a job."""
        shown = self.call("scontrol", "--oneliner", "show", "job", number).stdout
        return dict(part.split("=", 1) for part in shown.split() if "=" in part)

    def wait_until(
        self, number: str, found: Callable[[dict[str, str]], bool], seconds: float = 300.0
    ) -> dict[str, str]:
        """Wait until `found` accepts SLURM's fields of a job; returns them. Raises TimeoutError with the job's log."""
        deadline = time.monotonic() + seconds
        while not found(job := self.job(number)):
            if time.monotonic() > deadline or job["JobState"] in ENDED:
                raise TimeoutError(f"job {number} is {job['JobState']}\n{self.log(number)}")
            time.sleep(0.3)
        return job

    def end_of(self, number: str, seconds: float = 300.0) -> dict[str, str]:
        """Wait until a job has ended and left its nodes; returns SLURM's fields of it."""
        return self.wait_until(number, lambda job: job["JobState"] in ENDED, seconds)

    def log(self, number: str) -> str:
        """Return everything that a job has written, in all its restarts."""
        path = Path(self.job(number)["StdOut"])
        return path.read_text(errors="replace") if path.exists() else ""

    def ranks(self) -> list[int]:
        """Return the processes of runs on all nodes, by this machine's process ids."""
        spaces = set()
        for host in self.network.hosts.values():
            with suppress(OSError):  # a host that a test has ended
                spaces.add(Path(f"/proc/{host.pid}/ns/pid").readlink())
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (process / "cmdline").read_bytes().split(b"\0")
                if (process / "ns/pid").readlink() in spaces and {b"ftsys", b"torch.distributed.run"} & set(words):
                    found.append(int(process.name))
        return found

    def trainers(self) -> list[int]:
        """Return the ranks alone, without the torchruns that started them."""
        return [
            one for one in self.ranks() if b"torch.distributed.run" not in Path(f"/proc/{one}/cmdline").read_bytes()
        ]

    def slurmd_of(self, name: str) -> int:
        """Return a node's slurmd, by this machine's process id."""
        outer = self.daemons[f"slurmd-{name}"].pid
        words = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
        return int(words[0]) if words else outer

    def crash(self, name: str) -> None:
        """End a node with all that runs on it, at once."""
        self.network.hosts[name].process.kill()
        self.network.hosts[name].process.wait()

    def down(self) -> None:
        """End every daemon and every node, with all that runs on them."""
        self.network.down()
        for daemon in self.daemons.values():
            with suppress(ProcessLookupError):
                daemon.send_signal(signal.SIGKILL)
            daemon.wait()
