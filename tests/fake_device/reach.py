"""Lists the modules that speak of CUDA, and the test here that runs their lines about it, or the reason why none does.

Each test that is named here follows its own run line by line (`following`), and fails for a line that it does not run.
"""

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).parents[2]
WHOLE, GRAPHS, RANKS = "test_whole_run.py", "test_graphs.py", "test_ranks.py"
REACHED = {
    "ftsys/data/batching/collate.py": WHOLE,
    "ftsys/models/proof/compare.py": WHOLE,
    "ftsys/run_folder/environment.py": WHOLE,
    "ftsys/train/callbacks/energy.py": WHOLE,
    "ftsys/train/perf/cuda_graphs.py": GRAPHS,
    "ftsys/train/perf/host_copies.py": WHOLE,
    "ftsys/train/perf/matmul_rate.py": WHOLE,
    "ftsys/train/perf/staging.py": WHOLE,
    "ftsys/train/perf/throughput.py": WHOLE,
    "ftsys/train/planning.py": WHOLE,
    "ftsys/train/trial.py": WHOLE,
    "ftsys/train/perf/late_reduction.py": RANKS,
    "ftsys/train/trainer/training_step.py": RANKS,
}
"""Module -> the test that runs its lines about CUDA."""
NOT_REACHED = {
    "ftsys/distributed.py": "collectives of the fake GPU go over gloo; test_ranks.py sends messages as under NCCL",
    "ftsys/kernels/gpu_needs.py": "Triton is not installed with a CPU's torch; unit tests make up facts",
    "ftsys/kernels/library_attention.py": "torch's and flash-attn's kernels exist in CUDA only; tests/gpu",
    "ftsys/kernels/select.py": "a table by device",
    "ftsys/kernels/triton_attention/launch.py": "Triton is not installed with a CPU's torch; tests/parity",
    "ftsys/train/checkpoint/rng_state.py": "saves in the stock layout are tested on the CPU",
    "ftsys/train/fault_tolerance/out_of_memory.py": "the error is made up in tests/unit",
}
LEFT_OUT = {
    "except torch.cuda.OutOfMemoryError:": "the fake GPU has memory without end",
}
"""Lines of reached modules that no test here runs -> the reason."""
_ASKS = re.compile(r"torch\.(backends\.)?cuda\.|\"cuda\"|\.is_cuda")


def asking_modules() -> set[str]:
    """Return the modules that take part in a training and ask for CUDA."""
    parts = [ROOT / "ftsys" / part for part in ("train", "kernels", "models", "data", "run_folder")]
    files = [path for part in parts for path in part.rglob("*.py")] + list((ROOT / "ftsys").glob("*.py"))
    return {str(path.relative_to(ROOT)) for path in files if _ASKS.search(_code(path.read_text()))}


def _code(text: str) -> str:
    return re.sub(r'""".*?"""|#[^\n]*', "", text, flags=re.DOTALL)


@contextmanager
def following(test: str) -> Iterator[dict[str, set[int]]]:
    """Yield the lines that run in the block, by module, for the modules that `test` is to reach."""
    lines = {str(ROOT / module): set[int]() for module, by in REACHED.items() if by == Path(test).name}

    def each_line(frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line":
            lines[frame.f_code.co_filename].add(frame.f_lineno)
        return each_line

    def each_call(frame: FrameType, event: str, arg: Any) -> Any:
        return each_line if frame.f_code.co_filename in lines else None

    before = sys.gettrace()
    sys.settrace(each_call)
    threading.settrace(each_call)
    try:
        yield lines
    finally:
        sys.settrace(before)
        threading.settrace(None)


def missed(lines: dict[str, set[int]]) -> list[str]:
    """Return the lines about CUDA of functions in these modules that were not run, but for those of LEFT_OUT."""
    found = []
    for file, run in lines.items():
        text = Path(file).read_text()
        kept = text.splitlines()
        about = {
            number for number in _lines_of_functions(compile(text, file, "exec")) if _ASKS.search(kept[number - 1])
        }
        found += [f"{Path(file).name}:{number}: {kept[number - 1].strip()}" for number in sorted(about - run)]
    return [line for line in found if line.split(": ", 1)[1] not in LEFT_OUT]


def _lines_of_functions(code: CodeType, inside: bool = False) -> set[int]:
    """Return the numbers of lines that a function runs; those of modules and classes run at the import."""
    own = {number for _, _, number in code.co_lines() if number is not None and number != code.co_firstlineno}
    found = own if inside else set[int]()
    for each in code.co_consts:
        if isinstance(each, CodeType):
            found |= _lines_of_functions(each, inside=bool(each.co_flags & 2))  # CO_NEWLOCALS: a function, not a class
    return found
