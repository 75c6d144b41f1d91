"""Tests how ranks and devices are read from environment variables and the machine's files."""

from pathlib import Path

import pytest

from ftsys.errors import LaunchError
from launcher.planner.world import ProductRates, World, this_machine, visible_gpus


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "dev").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("flags\t\t: fpu sse avx512f\n")
    return tmp_path


def with_gpu(root: Path, name: str) -> Path:
    (root / "dev/nvidia0").touch()
    (root / "dev/nvidiactl").touch()
    folder = root / "proc/driver/nvidia/gpus/0000:01:00.0"
    folder.mkdir(parents=True)
    (folder / "information").write_text(f"Model: \t\t {name}\nIRQ: 1\n")
    return root


def test_one_process(machine: Path) -> None:
    assert this_machine({}, root=machine) == World()


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
def test_a_cpu_with_bf16(machine: Path, flag: str) -> None:
    (machine / "proc/cpuinfo").write_text(f"flags\t\t: fpu {flag} sse\n")
    assert this_machine({}, root=machine).bf16_supported


@pytest.mark.parametrize(("bf16", "pays"), [(0.3e12, False), (1.1e12, False), (1.3e12, True)])
def test_measured_rates_decide_against_the_list_of_instructions(machine: Path, bf16: float, pays: bool) -> None:
    for flags in ("avx512f", "avx512_bf16"):
        (machine / "proc/cpuinfo").write_text(f"flags : {flags}\n")
        world = this_machine({}, device="cpu", root=machine, rates=ProductRates(1e12, bf16))
        assert world.bf16_supported is pays


def test_a_machine_without_cpuinfo(tmp_path: Path) -> None:
    assert this_machine({}, root=tmp_path) == World()


@pytest.mark.parametrize(
    ("name", "bf16"),
    [
        ("NVIDIA H200", True),
        ("NVIDIA A100-SXM4-80GB", True),
        ("NVIDIA A40", True),
        ("NVIDIA L4", True),
        ("NVIDIA GeForce RTX 4090", True),
        ("NVIDIA RTX 6000 Ada Generation", True),
        ("Tesla V100-SXM2-16GB", False),
        ("Tesla T4", False),
        ("Tesla P100-PCIE-16GB", False),
        ("NVIDIA GeForce RTX 2080 Ti", False),
        ("NVIDIA TITAN RTX", False),
        ("Quadro RTX 6000", False),
    ],
)
def test_a_gpu(machine: Path, name: str, bf16: bool) -> None:
    world = this_machine({}, root=with_gpu(machine, name))
    assert (world.device, world.bf16_supported) == ("cuda", bf16)


def test_what_torch_says_wins(machine: Path) -> None:
    world = this_machine({}, device="cpu", bf16_supported=True, root=with_gpu(machine, "Tesla T4"))
    assert (world.device, world.bf16_supported) == ("cpu", True)


def test_torchrun(machine: Path) -> None:
    environ = {"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": "x"}
    world = this_machine(environ, root=machine)
    assert (world.ranks, world.nodes, world.local_ranks, world.launcher) == (8, 2, 4, "torchrun")


def test_the_deepspeed_launcher(machine: Path) -> None:
    environ = {"WORLD_SIZE": "2", "LOCAL_SIZE": "2", "CROSS_SIZE": "1", "CROSS_RANK": "0"}
    world = this_machine(environ, root=machine)
    assert (world.ranks, world.nodes, world.local_ranks, world.launcher) == (2, 1, 2, "deepspeed")


def test_another_launcher(machine: Path) -> None:
    assert this_machine({"WORLD_SIZE": "2", "LOCAL_SIZE": "2"}, root=machine).launcher == "none"


def test_a_driver_without_a_gpu(machine: Path) -> None:
    (machine / "dev/nvidiactl").touch()
    assert this_machine({}, root=machine).device == "cpu"


@pytest.mark.parametrize("text", ["two", "0", "-1", "1.5"])
def test_a_world_size_that_is_none(machine: Path, text: str) -> None:
    with pytest.raises(LaunchError, match="WORLD_SIZE='"):
        this_machine({"WORLD_SIZE": text}, root=machine)


@pytest.mark.parametrize(
    ("named", "gpus"),
    [(None, ("0", "1")), ("1", ("1",)), ("GPU-8, 0", ("GPU-8", "0")), ("", ()), ("-1,0", ()), ("1,-1,0", ("1",))],
)
def test_the_gpus_that_a_process_may_use(machine: Path, named: str | None, gpus: tuple[str, ...]) -> None:
    for number in (0, 1):
        (machine / f"dev/nvidia{number}").touch()
    environ = {} if named is None else {"CUDA_VISIBLE_DEVICES": named}
    assert visible_gpus(environ, machine) == gpus
