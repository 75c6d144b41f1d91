"""Tests the counters of energy with a powercap tree and an NVML that are made up."""

import ctypes
from pathlib import Path
from typing import Any

import pytest

from ftsys.train.perf.energy import NotToldError, Nvml, Rapl

MOST = 1_000_000


def zone(root: Path, number: str, name: str, microjoules: int) -> None:
    folder = root / f"intel-rapl:{number}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text(f"{MOST}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    """Two packages, one with DRAM, with the zones that must not count: cores are in the package, psys is all."""
    (tmp_path / "intel-rapl").mkdir()
    for number, name in (("0", "package-0"), ("0:0", "core"), ("0:1", "dram"), ("1", "package-1"), ("2", "psys")):
        zone(tmp_path, number, name, 400_000)
    zone(tmp_path, "mmio:0", "package-0", 400_000)
    return tmp_path


def test_packages_and_their_memory_count_once(powercap: Path) -> None:
    counter = Rapl("here", powercap)
    assert counter.joules() == 0.0
    for number, name in (("0", "package-0"), ("0:0", "core"), ("0:1", "dram"), ("1", "package-1"), ("2", "psys")):
        zone(powercap, number, name, 500_000)
    zone(powercap, "mmio:0", "package-0", 500_000)
    assert counter.joules() == pytest.approx(0.3)
    assert (counter.name, counter.place) == ("rapl", "here")


def test_a_counter_that_wraps_around_goes_on(powercap: Path) -> None:
    counter = Rapl("here", powercap)
    for value, joules in ((900_000, 0.5), (100_000, 0.7), (50_000, 1.65)):
        zone(powercap, "1", "package-1", value)
        assert counter.joules() == pytest.approx(joules)


def test_no_counter_and_one_that_may_not_be_read(powercap: Path, tmp_path: Path) -> None:
    with pytest.raises(NotToldError, match="none has no counter of a CPU package"):
        Rapl("here", tmp_path / "none")
    counter = Rapl("here", powercap)
    (powercap / "intel-rapl:0/energy_uj").write_text("?\n")
    with pytest.raises(NotToldError, match="intel-rapl:0/energy_uj cannot be read"):
        counter.joules()


def test_a_counter_of_root_alone_says_so(powercap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's default since 2020; root, who may run the tests, could read every file."""
    read = Path.read_text

    def refused(path: Path, *arguments: Any) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *arguments)

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(NotToldError, match="energy_uj may not be read by this user: ask for read access to it"):
        Rapl("here", powercap)


class FakeNvml:
    """Two GPUs by UUID, each with its millijoules; None: it does not count."""

    def __init__(self, **gpus: int | None) -> None:
        self.gpus = gpus
        self.ready = False

    def nvmlInit_v2(self) -> int:
        self.ready = True
        return 0

    def nvmlDeviceGetHandleByUUID(self, name: ctypes.c_char_p, handle: Any) -> int:
        uuid = bytes(name.value or b"").decode().removeprefix("GPU-")
        handle._obj.value = 1 + list(self.gpus).index(uuid) if uuid in self.gpus else None
        return 0 if self.ready and uuid in self.gpus else 6

    def nvmlDeviceGetTotalEnergyConsumption(self, device: ctypes.c_void_p, value: Any) -> int:
        found = list(self.gpus.values())[int(device.value or 0) - 1]
        value._obj.value = found or 0
        return 3 if found is None else 0


def test_a_gpu_counts_from_the_beginning() -> None:
    library = FakeNvml(a=1 << 40, b=7_000)
    counters = [Nvml("GPU-b", library), Nvml("a", library)]
    library.gpus |= {"a": (1 << 40) + 2_500, "b": 7_250}
    assert [counter.joules() for counter in counters] == [0.25, 2.5]
    assert (counters[0].name, counters[0].place) == ("nvml", "GPU-b")


def test_a_gpu_that_does_not_count_and_one_that_is_not_there() -> None:
    with pytest.raises(NotToldError, match="nvmlDeviceGetTotalEnergyConsumption of NVML gives status 3 for GPU a"):
        Nvml("a", FakeNvml(a=None))
    with pytest.raises(NotToldError, match="nvmlDeviceGetHandleByUUID of NVML gives status 6 for GPU b"):
        Nvml("b", FakeNvml(a=1))


def test_an_old_driver() -> None:
    class Old:
        nvmlInit_v2 = FakeNvml(a=1).nvmlInit_v2

    with pytest.raises(NotToldError, match="is too old: it has no nvmlDeviceGetHandleByUUID"):
        Nvml("a", Old())


def test_a_machine_without_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftsys.train.perf.energy.NVML", "libnvidia-ml-that-is-nowhere.so")
    with pytest.raises(NotToldError, match=r"nowhere\.so is not there"):
        Nvml("a")
