"""Tests the machines of a run, and the world that they form."""

import os
from pathlib import Path

import pytest

from ftsys.config import LaunchSection
from ftsys.errors import ConfigError, FtsysError, LaunchError
from launcher.backends.machines import (
    Machines,
    WorldRequest,
    allocated_machines,
    listed_machines,
    local_machine,
    world_of,
)
from launcher.cli import main
from launcher.protocol import Message

ANY = WorldRequest(None, None)


def ready(*gpus: int, bf16: bool = True) -> dict[int, Message]:
    names = [[str(each) for each in range(count)] for count in gpus]
    return {number: {"host": f"node{number}", "gpus": each, "bf16": bf16} for number, each in enumerate(names)}


@pytest.fixture
def hosts(tmp_path: Path) -> str:
    path = tmp_path / "hosts"
    path.write_text("node1 slots=4\nnode2 slots=4\nnode3 slots=2\n")
    return str(path)


def test_the_command_line_wins_over_the_run_file() -> None:
    launch = LaunchSection(nodes=2, gpus_per_node=4)
    assert WorldRequest.read(None, None, launch) == WorldRequest(2, 4)
    assert WorldRequest.read(1, 8, launch) == WorldRequest(1, 8)
    assert WorldRequest.read(None, None, LaunchSection()) == ANY


@pytest.mark.parametrize(("nodes", "ranks", "said"), [(0, None, "--nodes 0"), (None, -1, "--gpus-per-node -1")])
def test_counts_that_compute_nothing(nodes: int | None, ranks: int | None, said: str) -> None:
    with pytest.raises(ConfigError, match=f"{said} is too small"):
        WorldRequest.read(nodes, ranks, LaunchSection())


def test_the_machines_of_each_backend(hosts: str) -> None:
    assert local_machine("here", ANY) == Machines(("here",), None)
    assert local_machine("here", WorldRequest(1, 3)) == Machines(("here",), 3)
    assert allocated_machines(["a", "b", "c"], WorldRequest(2, None)) == Machines(("a", "b"), None)
    assert listed_machines(hosts, WorldRequest(2, None)) == Machines(("node1", "node2"), 4)
    assert listed_machines(hosts, WorldRequest(None, 2)) == Machines(("node1", "node2", "node3"), 2)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (ANY, "different slots .node1 has 4, node2 has 4, node3 has 2., .*write --gpus-per-node 2"),
        (WorldRequest(None, 3), "3 ranks on each node were requested, but hostfile .* gives 'node3' 2"),
        (WorldRequest(4, None), "4 nodes were requested, but there is only 3 in hostfile"),
    ],
)
def test_a_hostfile_that_gives_too_little(hosts: str, request_: WorldRequest, said: str) -> None:
    with pytest.raises(LaunchError, match=said):
        listed_machines(hosts, request_)


def test_a_hostfile_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_bytes(b"\xff\xfe")
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large").open("w") as stream:
        stream.truncate(2**32)
    cases = {
        "hosts": "it is not UTF-8 text",
        ".": "Is a directory",
        "pipe": "it is no regular file",
        "large": "it has more than 64 MiB",
    }
    for path, reason in ((tmp_path / name, reason) for name, reason in cases.items()):
        with pytest.raises(LaunchError, match=reason):
            listed_machines(str(path), ANY)


def test_worlds() -> None:
    world = world_of(ready(0, 0), Machines(("a", "b"), 2), "torchrun")
    assert (world.ranks, world.nodes, world.local_ranks, world.device) == (4, 2, 2, "cpu")
    world = world_of(ready(8, 8), Machines(("a", "b"), None), "torchrun")
    assert (world.ranks, world.local_ranks, world.device, world.bf16_supported) == (16, 8, "cuda", True)
    assert not world_of(ready(1, bf16=False), Machines(("a",), None), "torchrun").bf16_supported
    assert world_of(ready(4, 8), Machines(("a", "b"), 4), "torchrun").ranks == 8
    assert world_of(ready(0), Machines(("a",), None), "deepspeed").launcher == "deepspeed"


@pytest.mark.parametrize(("gpus", "ranks"), [((4, 8), None), ((0, 8), 4)])
def test_nodes_that_differ(gpus: tuple[int, int], ranks: int | None) -> None:
    with pytest.raises(FtsysError, match=f"node0 has {gpus[0]}, node1 has {gpus[1]}.: write --gpus-per-node"):
        world_of(ready(*gpus), Machines(("a", "b"), ranks), "torchrun")


def test_the_deepspeed_launcher_starts_one_machine(
    hosts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.toml").write_text('output_dir = "run"\n[task]\nname = "mrpc"\n')
    words = ["run", str(tmp_path / "run.toml"), "--hostfile", hosts, "--backend", "hostfile", "--launcher", "deepspeed"]
    assert main(words) == 2
    assert capsys.readouterr().err.startswith(
        "error: --launcher deepspeed starts one machine, but the backend is 'hostfile'"
    )


def test_this_machine_cannot_be_reached_by_others_as_localhost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.toml").write_text('output_dir = "run"\n[task]\nname = "mrpc"\n')
    (tmp_path / "hosts").write_text("localhost slots=1\nnode2 slots=1\n")
    words = ["run", str(tmp_path / "run.toml"), "--backend", "hostfile", "--hostfile", str(tmp_path / "hosts")]
    assert main(words) == 2
    assert "the first host is 'localhost', and the others cannot reach it by that name" in capsys.readouterr().err
