"""Collects the facts that need torch or the other nodes: devices, rendezvous, clocks, bandwidth of an all-reduce."""

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from ftsys.errors import ConfigError
from ftsys.probe.protocol import Probe
from ftsys.ranks import is_loopback
from launcher.planner.plan import this_machine

MEGABYTES = {"gloo": 16, "nccl": 64}
"""Size of the all-reduce in MB (10**6 bytes): large enough that latency does not matter, small for a slow network."""

REPEATS = 3
_SMI_SECONDS = 8.0
_PREFIXES = ("NCCL_", "TORCH_NCCL_", "TORCH_DISTRIBUTED_", "CUDA_LAUNCH_")
"""Beginnings of the environment variables that decide how GPUs talk to each other."""


def device_facts(probe: Probe) -> dict[str, Any]:
    """Return whether the CPU supports bf16, the GPUs that torch can use, and the driver's report about them.

    With a GPU also "triton": the reason why Triton's kernels cannot run on the first one, or None.
    """
    import torch

    facts: dict[str, Any] = {
        "torch": torch.__version__,
        "cuda_build": torch.version.cuda,
        "cpu_bf16": this_machine({}, device="cpu").bf16_supported,
        "gpus": [],
        "driver": _driver_facts(),
        "variables": {name: os.environ[name] for name in sorted(os.environ) if name.startswith(_PREFIXES)},
    }
    if torch.cuda.is_available():
        facts["bf16"] = torch.cuda.is_bf16_supported(False)
        facts["nccl"] = ".".join(map(str, torch.cuda.nccl.version())) if torch.distributed.is_nccl_available() else None
        facts["triton"] = _why_not_triton()
        facts["gpus"] = [_gpu_facts(index, probe) for index in range(torch.cuda.device_count())]
    return facts


def _why_not_triton() -> str | None:
    from ftsys.kernels.gpu_needs import why_not_triton

    try:
        return why_not_triton()
    except ConfigError as error:
        return str(error)


def _gpu_facts(index: int, probe: Probe) -> dict[str, Any]:
    """Return name and memory (bytes) of a GPU, and the error of a small matrix product on it or None.

    The product is skipped if less than half of the question's time is left.
    """
    import torch

    facts: dict[str, Any] = {"name": torch.cuda.get_device_name(index), "error": None}
    if probe.left < probe.question.seconds / 2:
        return facts
    try:
        ones = torch.ones(64, 64, device=f"cuda:{index}")
        wrong = float((ones @ ones).sum()) != 64.0**3
        free, total = torch.cuda.mem_get_info(index)
    except RuntimeError as error:  # device in exclusive mode, torch built without this architecture, or broken GPU
        return facts | {"error": str(error).splitlines()[0]}
    return facts | {"free": free, "total": total, "error": "computes a wrong product" if wrong else None}


def _driver_facts() -> list[dict[str, str]] | None:
    """Return one row per GPU from nvidia-smi, with its processes; None if nvidia-smi is missing or gives no answer."""
    columns = "index,uuid,name,memory.total,memory.used,compute_mode".split(",")
    rows = _smi(f"--query-gpu={','.join(columns)}")
    if rows is None:
        return None
    found = [dict(zip(columns, row, strict=True)) for row in rows if len(row) == len(columns)]
    busy = _smi("--query-compute-apps=gpu_uuid,pid,process_name,used_memory") or []
    return [
        gpu
        | {
            "processes": ", ".join(
                f"{row[2]} (process {row[1]})" for row in busy if len(row) > 2 and row[0] == gpu["uuid"]
            )
        }
        for gpu in found
    ]


def _smi(query: str) -> list[list[str]] | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        words = [program, query, "--format=csv,noheader,nounits"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=_SMI_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode != 0:
        return None
    return [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]


def meet(probe: Probe, between: Callable[[], None] = lambda: None) -> bool:
    """Connect all probes, call `between` while all are connected, and do an all-reduce; report each result.

    Return True if all probes took part until the end.
    """
    store = _rendezvous(probe)
    between()
    if store is None or not _wait(probe, store, "between"):
        return False
    _all_reduce(probe, store)
    if probe.number == 0:
        return _wait(probe, store, "end")  # probe 0 serves the store, so it stays until all others are done
    store.set(f"end/{probe.number}", b"1")
    return True


def _rendezvous(probe: Probe) -> Any:
    """Return the store of all probes, or None; report the rendezvous, and this node's clock when all are connected."""
    import torch
    from torch.distributed import TCPStore

    from ftsys.distributed import serve_store

    question, start = probe.question, time.monotonic()
    wait = timedelta(seconds=probe.patience)
    try:
        if probe.number == 0 and is_loopback(question.master):
            store = serve_store(question.master, question.port, wait)
        else:  # with several nodes, as torchrun serves it: on all interfaces
            store = TCPStore(question.master, question.port, None, probe.number == 0, wait, wait_for_workers=False)
    except (RuntimeError, OSError) as error:  # torch's DistError: the port is in use, no answer, unknown host
        probe.report("rendezvous", {"error": _first_line(error), "seconds": _since(start), "absent": []})
        # The other probes wait this long, too; so all look for each other's tokens at the same time.
        time.sleep(max(0.0, wait.total_seconds() - _since(start)) if len(set(question.hosts)) > 1 else 0.0)
        return None
    connected = _since(start)
    usable = (
        not question.cpu and torch.cuda.device_count() > probe.local_number and torch.distributed.is_nccl_available()
    )
    store.set(f"device/{probe.number}", b"cuda" if usable else b"cpu")
    if not _wait(probe, store, "here", start):
        return None
    probe.report("clock", time.time())
    probe.report("rendezvous", {"error": None, "seconds": _since(start), "connected": connected, "absent": []})
    return store


def _wait(probe: Probe, store: Any, place: str, start: float | None = None) -> bool:
    """Return True if all probes reached a meeting point in time; else report those that are missing."""
    start = time.monotonic() if start is None else start
    keys = [f"{place}/{number}" for number in range(len(probe.question.hosts))]
    try:
        store.set(keys[probe.number], b"1")
        store.wait(keys, timedelta(seconds=probe.patience))
    except RuntimeError as error:
        absent = _absent(store, keys)
        probe.report("rendezvous", {"error": _first_line(error), "seconds": _since(start), "absent": absent})
        return False
    return True


def _absent(store: Any, keys: list[str]) -> list[int]:
    try:
        return [number for number, key in enumerate(keys) if not store.check([key])]
    except RuntimeError:  # the store is no longer reachable
        return []


def _all_reduce(probe: Probe, store: Any) -> None:
    """Sum a tensor over all probes, a few times; report the bandwidth of each probe's link in MB/s."""
    import torch
    from torch import distributed

    count = len(probe.question.hosts)
    backend = "nccl" if all(store.get(f"device/{number}") == b"cuda" for number in range(count)) else "gloo"
    device = torch.device(f"cuda:{probe.local_number}" if backend == "nccl" else "cpu")
    start = time.monotonic()
    try:
        distributed.init_process_group(
            backend,
            store=distributed.PrefixStore("all_reduce", store),
            rank=probe.number,
            world_size=count,
            timeout=timedelta(seconds=probe.patience),
            device_id=device if backend == "nccl" else None,
        )
        seconds, right = _timed_sums(device, MEGABYTES[backend], count)
        distributed.destroy_process_group()
    except (RuntimeError, OSError) as error:
        probe.report("all_reduce", {"backend": backend, "error": _first_line(error), "seconds": _since(start)})
        return
    moved = MEGABYTES[backend] * 2 * (count - 1) / count  # MB that a ring all-reduce sends over each link
    facts = {"backend": backend, "megabytes": MEGABYTES[backend], "mb_per_s": round(moved / seconds, 1)}
    probe.report("all_reduce", facts | {"error": None if right else "the sum is wrong", "seconds": _since(start)})


def _timed_sums(device: Any, megabytes: int, count: int) -> tuple[float, bool]:
    """Return (median seconds of an all-reduce without the first one, True if the sums are right)."""
    import torch
    from torch import distributed

    seconds, right = [], True
    for _ in range(REPEATS + 1):
        tensor = torch.ones(megabytes * 250_000, device=device)
        distributed.barrier()
        start = time.perf_counter()
        distributed.all_reduce(tensor)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
        right = right and bool((tensor == count).all())
    return max(statistics.median(seconds[1:]), 1e-9), right


def _since(start: float) -> float:
    return round(time.monotonic() - start, 2)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300] or type(error).__name__
