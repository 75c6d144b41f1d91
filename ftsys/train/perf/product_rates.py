"""Measures how fast this CPU multiplies matrices in float32 and in bf16, which decides the automatic precision."""

import hashlib
import json
import os
import time
import uuid
from pathlib import Path

import torch
from typing_extensions import TypedDict

from ftsys.cache import cache_folder
from ftsys.files.untrusted import file_bytes, json_object, typed
from launcher.planner.world import ProductRates

ROWS, COLUMNS = 512, 768
"""Shape of the product: tokens of a small micro-batch, and the hidden size of BERT-base."""
WINDOWS, WINDOW_SECONDS = 6, 0.03
"""The two formats take turns, and the best window of each counts: another process disturbs single windows."""


class _Saved(TypedDict):
    """The content of a file of measured rates, in FLOP/s."""

    fp32: float
    bf16: float


def product_rates() -> ProductRates:
    """Return this CPU's rates, measured once for each processor, version of torch and number of threads.

    The first process that has measured writes the file, and every process returns what the file says: ranks agree. A
    cache folder that cannot be written costs a measurement in each process, 0.4 seconds.
    """
    path = cache_folder() / f"product-rates-{_key()}.json"
    saved = _read(path)
    if saved is not None:
        return saved
    measured = measure()
    return _publish(path, measured) or measured


def measure() -> ProductRates:
    """Measure both rates with the threads that torch uses."""
    with torch.inference_mode():
        operands = {kind: _operands(kind) for kind in (torch.float32, torch.bfloat16)}
        for left, right in operands.values():
            left @ right  # the first product selects or compiles its kernel
        windows = [[_rate(*pair) for pair in operands.values()] for _ in range(WINDOWS)]
    fp32, bf16 = (max(rates) for rates in zip(*windows, strict=True))
    return ProductRates(fp32, bf16)


def _operands(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((ROWS, COLUMNS), (COLUMNS, COLUMNS))
    left, right = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    return left, right


def _rate(left: torch.Tensor, right: torch.Tensor) -> float:
    """Return FLOP/s of one window: a product of N x K and K x M counts 2 * N * K * M."""
    start, products = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < WINDOW_SECONDS or not products:
        left @ right
        products += 1
    return products * 2 * left.shape[0] * left.shape[1] * right.shape[1] / elapsed


def _key() -> str:
    """Return a short name of everything that the rates depend on."""
    wanted = ("model name", "flags", "Features", "CPU part")  # the latter two on ARM
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    found = sorted({line for line in lines if line.startswith(wanted)})
    facts = json.dumps([found, torch.__version__, torch.get_num_threads()])
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def _read(path: Path) -> ProductRates | None:
    """Return the rates in a file; None if it is not there or damaged, and then it is measured again."""
    try:
        found = typed(_Saved, json_object(file_bytes(path)))
    except (OSError, ValueError):
        return None
    usable = all(1e6 < found[name] < 1e18 for name in ("fp32", "bf16"))
    return ProductRates(found["fp32"], found["bf16"]) if usable else None


def _publish(path: Path, rates: ProductRates) -> ProductRates | None:
    """Write the rates unless another process has, and return those of the file; None if it cannot be written."""
    own = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}")  # a name that nobody can have put there
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with own.open("x") as stream:
            json.dump({"fp32": rates.fp32, "bf16": rates.bf16}, stream)
        if path.exists() and _read(path) is None:
            path.unlink()  # damaged
        try:
            os.link(own, path)
        except FileExistsError:
            pass  # another process was first
        finally:
            own.unlink()
    except OSError:
        return None
    return _read(path)
