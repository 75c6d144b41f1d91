"""Lists the modules that speak of CUDA, and the test here that reaches them, or the reason why none does."""

import re
from pathlib import Path

REACHED = {
    "ftsys/kernels/gpu_needs.py": "not reached: Triton is not installed with a CPU's torch; unit tests make up facts",
    "ftsys/kernels/triton_attention/launch.py": "not reached: Triton is not installed with a CPU's torch; tests/parity",
    "ftsys/kernels/select.py": 'test_whole_run.py: the kernels for "cuda"',
    "ftsys/train/checkpoint/rng_state.py": "test_whole_run.py: a save in the stock layout is on the CPU's tests",
    "ftsys/train/perf/staging.py": "test_whole_run.py: background saves and a resume",
    "ftsys/train/fault_tolerance/out_of_memory.py": "tests/unit: the error is made up there",
    "ftsys/train/perf/cuda_graphs.py": "test_graphs.py",
    "ftsys/train/perf/host_copies.py": "test_waits.py",
    "ftsys/train/perf/matmul_rate.py": "test_whole_run.py",
    "ftsys/train/perf/throughput.py": "test_whole_run.py",
    "ftsys/train/planning.py": "test_whole_run.py: the plan of this world",
    "ftsys/train/trial.py": "test_whole_run.py: the trial of its trainer section",
    "ftsys/kernels/library_attention.py": "not reached: torch's and flash-attn's kernels exist in CUDA only; tests/gpu",
}
_ASKS = re.compile(r"torch\.(backends\.)?cuda\.|\"cuda\"|\.is_cuda")


def test_every_module_that_asks_for_cuda_is_listed(repository: Path) -> None:
    files = [path for part in ("train", "kernels") for path in (repository / "ftsys" / part).rglob("*.py")]
    asking = {str(path.relative_to(repository)) for path in files if _ASKS.search(_code(path.read_text()))}
    assert asking == REACHED.keys()


def _code(text: str) -> str:
    return re.sub(r'""".*?"""|#[^\n]*', "", text, flags=re.DOTALL)
