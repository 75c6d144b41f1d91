"""What takes torch and the other nodes: devices, the rendezvous, clocks, an all-reduce with its bandwidth."""

import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from ftsys.probe.protocol import Seat
from launcher.planner.plan import this_machine

MEGABYTES = {"gloo": 16, "nccl": 64}
"""Size of the all-reduce: large enough that latency does not count, small enough for a slow network."""

REPEATS = 3
_SMI_SECONDS = 8.0


def device_facts(seat: Seat) -> dict[str, Any]:
    """The CPU's bf16, the GPUs that torch sees and can compute on, and what the driver says of them."""
    import torch

    facts: dict[str, Any] = {
        "torch": torch.__version__,
        "cuda_build": torch.version.cuda,
        "cpu_bf16": this_machine({}, device="cpu").bf16_supported,
        "gpus": [],
        "driver": _driver_facts(),
    }
    if torch.cuda.is_available():
        facts["bf16"] = torch.cuda.is_bf16_supported(False)
        facts["nccl"] = ".".join(map(str, torch.cuda.nccl.version())) if torch.distributed.is_nccl_available() else None
        facts["gpus"] = [_gpu_facts(index, seat) for index in range(torch.cuda.device_count())]
    return facts


def _gpu_facts(index: int, seat: Seat) -> dict[str, Any]:
    """Name and memory of a GPU, and the error of a first small product on it, while there is time for one."""
    import torch

    facts: dict[str, Any] = {"name": torch.cuda.get_device_name(index), "error": None}
    if seat.left < seat.question.seconds / 2:
        return facts
    try:
        ones = torch.ones(64, 64, device=f"cuda:{index}")
        wrong = float((ones @ ones).sum()) != 64.0**3
        free, total = torch.cuda.mem_get_info(index)
    except RuntimeError as error:  # a busy device in exclusive mode, a build without this architecture, a broken one
        return facts | {"error": str(error).splitlines()[0]}
    return facts | {"free": free, "total": total, "error": "computes a wrong product" if wrong else None}


def _driver_facts() -> list[dict[str, str]] | None:
    """A row a GPU from nvidia-smi, with the processes on it; None where there is no such program or no answer."""
    asked = "index,uuid,name,memory.total,memory.used,compute_mode".split(",")
    rows = _smi(f"--query-gpu={','.join(asked)}")
    if rows is None:
        return None
    found = [dict(zip(asked, row, strict=True)) for row in rows if len(row) == len(asked)]
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


def meet(seat: Seat, between: Callable[[], None] = lambda: None) -> bool:
    """Meet the other seats, do what is to be done while all are there, and all-reduce; tells what each gave.

    Returns whether all came and stayed.
    """
    store = _rendezvous(seat)
    between()
    if store is None or not _wait(seat, store, "between"):
        return False
    _all_reduce(seat, store)
    if seat.number == 0:
        return _wait(seat, store, "end")  # it holds the store: it stays until all are through
    store.set(f"end/{seat.number}", b"1")
    return True


def _rendezvous(seat: Seat) -> Any:
    """The store of all seats, or None; tells of the port, the meeting, and this node's clock when all had come."""
    import torch
    from torch.distributed import TCPStore

    question, start = seat.question, time.monotonic()
    wait = timedelta(seconds=seat.patience)
    try:
        store = TCPStore(
            question.master, question.port, is_master=seat.number == 0, timeout=wait, wait_for_workers=False
        )
    except (RuntimeError, OSError) as error:  # torch's DistError: the port is taken, nobody answers, no such host
        seat.tell("rendezvous", {"error": _first_line(error), "seconds": _since(start), "absent": []})
        # The others wait for as long: what they look for afterwards, they look for together.
        time.sleep(max(0.0, wait.total_seconds() - _since(start)) if len(set(question.hosts)) > 1 else 0.0)
        return None
    connected = _since(start)
    usable = not question.cpu and torch.cuda.device_count() > seat.local and torch.distributed.is_nccl_available()
    store.set(f"device/{seat.number}", b"cuda" if usable else b"cpu")
    if not _wait(seat, store, "here", start):
        return None
    seat.tell("clock", time.time())
    seat.tell("rendezvous", {"error": None, "seconds": _since(start), "connected": connected, "absent": []})
    return store


def _wait(seat: Seat, store: Any, place: str, start: float | None = None) -> bool:
    """Whether all seats came to a meeting point in time; tells who did not."""
    start = time.monotonic() if start is None else start
    keys = [f"{place}/{number}" for number in range(len(seat.question.hosts))]
    try:
        store.set(keys[seat.number], b"1")
        store.wait(keys, timedelta(seconds=seat.patience))
    except RuntimeError as error:
        absent = _absent(store, keys)
        seat.tell("rendezvous", {"error": _first_line(error), "seconds": _since(start), "absent": absent})
        return False
    return True


def _absent(store: Any, keys: list[str]) -> list[int]:
    try:
        return [number for number, key in enumerate(keys) if not store.check([key])]
    except RuntimeError:  # the store itself is gone
        return []


def _all_reduce(seat: Seat, store: Any) -> None:
    """Sum a tensor over all seats, a few times; tells the bandwidth in MB/s as each seat's link sees it."""
    import torch
    from torch import distributed

    count = len(seat.question.hosts)
    backend = "nccl" if all(store.get(f"device/{number}") == b"cuda" for number in range(count)) else "gloo"
    device = torch.device(f"cuda:{seat.local}" if backend == "nccl" else "cpu")
    start = time.monotonic()
    try:
        distributed.init_process_group(
            backend,
            store=distributed.PrefixStore("all_reduce", store),
            rank=seat.number,
            world_size=count,
            timeout=timedelta(seconds=seat.patience),
            device_id=device if backend == "nccl" else None,
        )
        seconds, right = _timed_sums(device, MEGABYTES[backend], count)
        distributed.destroy_process_group()
    except (RuntimeError, OSError) as error:
        seat.tell("all_reduce", {"backend": backend, "error": _first_line(error), "seconds": _since(start)})
        return
    moved = MEGABYTES[backend] * 2 * (count - 1) / count  # what a ring sends over each link
    facts = {"backend": backend, "megabytes": MEGABYTES[backend], "mb_per_s": round(moved / seconds, 1)}
    seat.tell("all_reduce", facts | {"error": None if right else "the sum is wrong", "seconds": _since(start)})


def _timed_sums(device: Any, megabytes: int, count: int) -> tuple[float, bool]:
    """(median seconds of an all-reduce after a first one, whether the sums are right)."""
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
