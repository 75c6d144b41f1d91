"""Starts a probe on each node, in the same way as `ftlaunch run` starts its agents, and collects the facts."""

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from ftsys.config import plain_tree
from ftsys.console.child_python import python_command
from ftsys.files.untrusted import json_object, typed
from launcher.command_lines import remote_shell_line, srun_prefix, ssh_prefix
from launcher.doctor.facts import CheckRequest, ClusterFacts, ProbeOutput
from launcher.doctor.run_on_nodes import CommandResult, run_together
from launcher.host.folders import current_folder
from launcher.timeouts import PROBE_LEAST_SECONDS, PROBE_START_SECONDS

_MAX_ERROR_CHARACTERS = 2_000


class _Message(TypedDict):
    """A line of a probe's output: the probe's number, and one group of its facts."""

    probe: int
    group: str
    facts: Any


def collect_facts(request: CheckRequest, environ: Mapping[str, str]) -> ClusterFacts:
    """Probe all nodes at once. `environ`: the environment variables that the nodes get.

    Raises LaunchError if ssh or srun is not on this machine.
    """
    token = uuid.uuid4().hex[:12]
    commands = _commands(request, environ)
    question = _question(request, token, environ)
    results = run_together([command for command, _ in commands], question, request.seconds)
    _remove_left_files(request, token)
    outputs: dict[int, ProbeOutput] = {}
    for (_, probes), result in zip(commands, results, strict=True):
        outputs |= _outputs(probes, result)
    return ClusterFacts(request, outputs)


def _question(request: CheckRequest, token: str, environ: Mapping[str, str]) -> str:
    fields: dict[str, Any] = {
        "hosts": request.hosts,
        "master": request.nodes[0] if len(request.nodes) > 1 else "127.0.0.1",
        "port": request.port,
        "seconds": max(PROBE_LEAST_SECONDS, request.seconds - PROBE_START_SECONDS),
        "token": token,
        "run": plain_tree(request.run.model_copy(update={"recipe": None})),  # the values: a node may lack its file
        "packages": list(request.requirements),
        "cpu": request.cpu,
        "environ": dict(environ),
    }
    return json.dumps(fields) + "\n"


def _commands(request: CheckRequest, environ: Mapping[str, str]) -> list[tuple[list[str], tuple[int, ...]]]:
    """Return (command, numbers of the probes that it starts) for each process on this machine."""
    numbers = tuple(range(len(request.hosts)))
    if request.backend == "slurm":
        prefix = srun_prefix(request.nodes, os.environ, tasks_per_node=len(numbers) // len(request.nodes))
        # Without killing on a bad exit: a probe that fails must not end the others.
        return [([*prefix, "--kill-on-bad-exit=0", *_probe_command()], numbers)]
    if request.backend == "hostfile":
        folder = str(current_folder(os.environ))
        lines = [remote_shell_line(_probe_command(number), folder, environ) for number in numbers]
        return [([*ssh_prefix(request.hosts[number]), lines[number]], (number,)) for number in numbers]
    return [(_probe_command(number), (number,)) for number in numbers]


def _probe_command(number: int | None = None) -> list[str]:
    return python_command("-m", "launcher.doctor.probe_entry", *([] if number is None else [str(number)]))


def _outputs(probes: Sequence[int], result: CommandResult) -> dict[int, ProbeOutput]:
    """Return the output of each probe, without other lines, such as the greeting of a remote shell."""
    groups: dict[int, dict[str, Any]] = {number: {} for number in probes}
    for line in result.output.splitlines():
        if line.startswith('{"probe": '):
            with suppress(ValueError):  # cut off by a kill: the group is missing, as all that would have come after it
                message = typed(_Message, json_object(line))
                groups.get(message["probe"], {})[message["group"]] = message["facts"]
    errors = result.errors[-_MAX_ERROR_CHARACTERS:]
    return {number: ProbeOutput(found, result.status, errors) for number, found in groups.items()}


def _remove_left_files(request: CheckRequest, token: str) -> None:
    """Remove files that a killed probe left in the run folder or a folder above it, if this machine sees them."""
    folder = Path(request.run.output_dir).absolute()
    for place in (folder, *folder.parents):
        for left in place.glob(f".ftsys-doctor-{token}-*"):
            left.unlink(missing_ok=True)
