"""Writes made-up machines: the files below / that tell of cores and quotas."""

from pathlib import Path


def machine(root: Path, packages: int = 1, cores: int = 4, threads: int = 2) -> Path:
    """Write a topology with Linux's usual numbers: first hardware threads of all cores, then the second ones."""
    count = packages * cores
    for cpu in range(count * threads):
        core = cpu % count
        folder = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text(f"{core // cores}\n")
        (folder / "thread_siblings_list").write_text(",".join(str(core + count * each) for each in range(threads)))
    return root


def with_quota(root: Path, quota: str) -> Path:
    """Put this process into a cgroup of version 2 with the content `quota` of cpu.max, as "150000 100000"."""
    for name, text in {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": f"{quota}\n"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root
