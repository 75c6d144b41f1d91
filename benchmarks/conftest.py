"""What the suites share: texts and models laid out once, and peers in processes of their own.

FTSYS_BENCH_MODELS names the models, "minilm" by default; "tiny" shows in seconds that everything runs. FTSYS_GLUE_DIR
names a folder of GLUE's files; without it the text is the synthetic sample.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from ftsys.bench.harness.inputs import make_inputs, read_pairs
from ftsys.bench.harness.measuring import Case
from ftsys.bench.harness.models import model_folders
from ftsys.bench.harness.peers import installed, peer_spec
from ftsys.bench.harness.rounds import Blocks, Crew, Figures

MODELS = os.environ.get("FTSYS_BENCH_MODELS", "minilm").split()
ROUNDS = 5

Measured = Callable[..., list[Figures]]


@pytest.fixture(scope="session", params=MODELS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """One model with its data, for all suites."""
    name, work = request.param, tmp_path_factory.mktemp("bench")
    folder = model_folders([name], work)[name]
    return Case(name, folder, make_inputs(read_pairs(64 if name == "tiny" else None), folder, work), work)


@pytest.fixture
def measured(benchmark: BenchmarkFixture, case: Case, tmp_path: Path) -> Iterator[Measured]:
    """Starts the process of a peer and times its blocks: `measured(mode, peer, field=...)`, fields as in `Spec`."""
    with ExitStack() as stack:

        def measure(mode: str, peer: str, rounds: int = ROUNDS, **fields: Any) -> list[Figures]:
            if not installed([peer])[0]:
                pytest.skip(installed([peer])[1][0])
            crew = stack.enter_context(Crew(tmp_path))
            spec = replace(peer_spec(mode, peer, case.folder, case.inputs, tmp_path), **fields)
            worker = crew.add(peer, spec.to_json())
            worker.wait_until_ready()
            return timed(benchmark, worker, rounds)

        yield measure


def timed(benchmark: BenchmarkFixture, peer: Blocks, rounds: int = ROUNDS) -> list[Figures]:
    """Rounds of one peer's blocks under pytest-benchmark, after a warm-up; the figures go into its record."""
    blocks: list[Figures] = []
    benchmark.pedantic(lambda: blocks.append(peer.block()), rounds=rounds, warmup_rounds=1)
    measured = blocks[1:]
    benchmark.extra_info["blocks"] = measured
    if measured[0].get("tokens"):
        benchmark.extra_info["real_tokens_per_s"] = [block["tokens"] / block["seconds"] for block in measured]
    return measured
