"""Ranks of one CPU each, and the planning of a step for many ranks, under pytest-benchmark."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.conftest import timed
from ftsys.bench.harness.measuring import Case
from ftsys.bench.harness.rounds import Crew
from ftsys.bench.imbalance import MICRO_TOKENS, PER_RANK, RANKS, drawn_lengths
from ftsys.bench.scaling import RANK_COUNTS, start_ranks
from ftsys.data.batching.plan import plan_local_batch
from ftsys.data.store.reader import Store


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    with Crew(tmp_path) as found:
        yield found


@pytest.mark.benchmark(group="ranks")
@pytest.mark.parametrize("count", RANK_COUNTS)
def test_ranks(benchmark: BenchmarkFixture, case: Case, crew: Crew, count: int) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    if count > len(cpus):
        pytest.skip(f"{count} ranks of one CPU each, and there are {len(cpus)}")
    assert all(block["steps"] == 4 for block in timed(benchmark, start_ranks(crew, case, cpus[:count], 4)))


@pytest.mark.benchmark(group="planning")
@pytest.mark.parametrize("ranks", RANKS)
def test_planning_a_step(benchmark: BenchmarkFixture, case: Case, ranks: int) -> None:
    lengths = drawn_lengths(np.asarray(Store.open(case.inputs.store).splits["train"].lengths), ranks)
    ids = np.arange(PER_RANK * ranks)
    share = benchmark.pedantic(plan_local_batch, (ids, lengths[ids], 0, ranks, MICRO_TOKENS), rounds=5, warmup_rounds=1)
    assert share.step_examples == PER_RANK * ranks
