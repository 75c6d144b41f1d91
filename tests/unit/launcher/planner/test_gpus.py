"""Tests how GPUs are recognized by their driver's names, and how amounts of memory are parsed."""

from pathlib import Path

import pytest

from ftsys.errors import ConfigError
from launcher.planner.gpus import GIB, GPUS, gpu_named, gpu_of, parse_memory, seen_models
from launcher.planner.world import this_machine

DRIVER_NAMES = {
    "NVIDIA H200": "h200-141g",
    "NVIDIA H100 80GB HBM3": "h100-80g",
    "NVIDIA A100-SXM4-80GB": "a100-80g",
    "NVIDIA A100 80GB PCIe": "a100-80g",
    "NVIDIA A100-SXM4-40GB": "a100-40g",
    "NVIDIA L40S": "l40s-48g",
    "NVIDIA A10": "a10-24g",
    "NVIDIA GeForce RTX 4090": "rtx4090-24g",
    "Tesla V100-SXM2-16GB": "v100-16g",
    "Tesla V100-SXM3-32GB": "v100-32g",
    "Tesla T4": "t4-16g",
    "NVIDIA H100 NVL": "h100nvl-94g",
    "NVIDIA H100 PCIe": "h100pcie-80g",
    "NVIDIA H100 64GB HBM3": None,
    "NVIDIA H200 NVL": None,
    "NVIDIA GH200 480GB": "gh200-96g",
    "NVIDIA GH200 144G HBM3e": None,
    "NVIDIA B200": "b200-180g",
    "NVIDIA GB200": "gb200-186g",
    "NVIDIA GB300": None,
    "NVIDIA H20": None,
    "NVIDIA L4": "l4-24g",
    "NVIDIA L40": "l40-48g",
    "NVIDIA L40G": None,
    "NVIDIA A100-SXM-64GB": None,
    "NVIDIA A100-SXM4-40GB MIG 1g.5gb": None,
    "NVIDIA H100 80GB HBM3 MIG 3g.40gb": None,
    "NVIDIA A800-SXM4-80GB": None,
    "NVIDIA A10-24Q": None,
    "NVIDIA A100X": None,
    "GRID T4-8Q": None,
    "NVIDIA T4": "t4-16g",
    "NVIDIA T4G": None,
    "NVIDIA T400 4GB": None,
    "Tesla V100S-PCIE-32GB": None,
    "Tesla V100-PCIE-16GB": "v100-16g",
    "NVIDIA GeForce RTX 4090 Laptop GPU": None,
    "NVIDIA A10G": None,
    "NVIDIA GeForce RTX 4090 D": None,
    "NVIDIA GeForce GTX 1080": None,
}


def machine(root: Path, *models: str) -> Path:
    """Create a folder that looks like the root of a machine with these GPUs."""
    (root / "dev").mkdir()
    for number, model in enumerate(models):
        (root / f"dev/nvidia{number}").touch()
        folder = root / f"proc/driver/nvidia/gpus/0000:0{number}:00.0"
        folder.mkdir(parents=True)
        (folder / "information").write_text(f"Model: \t\t {model}\nIRQ:   \t\t 42\nGPU UUID: \t GPU-1\n")
    return root


@pytest.mark.parametrize("model", DRIVER_NAMES)
def test_what_the_driver_calls_it(model: str, tmp_path: Path) -> None:
    found = gpu_of(model)
    assert (found.name if found else None) == DRIVER_NAMES[model]
    assert seen_models(machine(tmp_path, model)) == [model]


def test_a_world_knows_its_gpus_where_they_are_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "same").mkdir()
    (tmp_path / "mixed").mkdir()
    same = this_machine({}, root=machine(tmp_path / "same", "Tesla T4", "Tesla T4"))
    assert (same.device, same.gpu, same.device_memory) == ("cuda", "t4-16g", GPUS["t4-16g"].memory)
    mixed = this_machine({}, root=machine(tmp_path / "mixed", "Tesla T4", "NVIDIA L40S"))
    assert (mixed.gpu, mixed.device_memory) == ("", None)
    told = this_machine({}, root=tmp_path / "same", device_memory=5 * GIB)
    assert told.device_memory == 5 * GIB
    assert this_machine({}, device="cpu", root=tmp_path / "same").device_memory is None


def test_the_table_is_in_order() -> None:
    for name, gpu in GPUS.items():
        size = float(name.rpartition("-")[2].removesuffix("g"))
        assert gpu_named(name) is gpu
        assert 0.88 * size * GIB < gpu.memory <= size * GIB
        assert gpu.rate("bf16") == gpu.rate("fp16") > gpu.rate("fp32")
        assert gpu.memory_bandwidth > gpu.link >= gpu.host_link * 0.5


@pytest.mark.parametrize(
    ("text", "size"),
    [("24GiB", 24 * GIB), ("24", 24 * GIB), (" 1.5 G ", int(1.5 * GIB)), ("80GB", 80 * 10**9), ("512MiB", GIB // 2)],
)
def test_amounts_of_memory(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "0", "0.0000000001", "-3GiB", "24TB", "much", "9" * 400, "9" * 305 + "GiB"])
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(ConfigError, match="is not an amount of memory: write it as 24GiB"):
        parse_memory(text)


def test_a_gpu_that_nobody_knows() -> None:
    with pytest.raises(ConfigError, match=r"--gpu 'h300' is not in the table: write one of h200-141g, h100-80g"):
        gpu_named("h300")
