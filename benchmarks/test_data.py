"""pytest-benchmark suite over ftsys/bench/data.py: `make bench`, or `pytest benchmarks/test_data.py`.

Ratios between peers are asserted nowhere: a benchmark measures, `ftsys bench data` compares in one run and records.
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from ftsys.bench.data import BATCH, sparse_store, train_pairs
from ftsys.bench.harness.inputs import MAX_LENGTH, Pairs
from ftsys.data.batching.collate import pack
from ftsys.data.build_store import StoreRequest, write_store
from ftsys.data.store.reader import Store
from ftsys.data.tokenize.tokenizer import load_tokenizer
from ftsys.model_files.folder import BUNDLED, check_model_folder

PAIRS = 4096
HUNDRED_MILLION = 100_000_000


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    return train_pairs(PAIRS)


@pytest.fixture(scope="module")
def request_(pairs: Pairs, tmp_path_factory: pytest.TempPathFactory) -> StoreRequest:
    return StoreRequest(pairs, pairs.task, check_model_folder(BUNDLED), MAX_LENGTH, tmp_path_factory.mktemp("stores"))


@pytest.fixture(scope="module", autouse=True)
def library_threads() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "TOKENIZERS_PARALLELISM", "true")
        yield


def write(request_: StoreRequest) -> Path:
    tokenizer = load_tokenizer(request_.model_folder, MAX_LENGTH)
    return write_store(request_, uuid.uuid4().hex, tokenizer, uuid.uuid4().hex, lambda *_: None)


def test_prepare(benchmark: BenchmarkFixture, request_: StoreRequest) -> None:
    tokenizer = load_tokenizer(request_.model_folder, MAX_LENGTH)

    def prepare() -> None:
        shutil.rmtree(write_store(request_, uuid.uuid4().hex, tokenizer, uuid.uuid4().hex, lambda *_: None))

    benchmark(prepare)
    benchmark.extra_info["pairs"] = PAIRS


def test_tokenizer_library(benchmark: BenchmarkFixture, request_: StoreRequest, pairs: Pairs) -> None:
    from tokenizers import Tokenizer

    library = Tokenizer.from_file(str(request_.model_folder / "tokenizer.json"))
    library.no_padding()
    library.enable_truncation(MAX_LENGTH)
    texts = list(zip(pairs.of["train"].first, pairs.of["train"].second, strict=True))
    benchmark(library.encode_batch, texts)
    benchmark.extra_info["pairs"] = PAIRS


def test_packed_batch(benchmark: BenchmarkFixture, request_: StoreRequest) -> None:
    split = Store.open(write(request_)).splits["train"]
    rows = np.random.default_rng(0).integers(0, split.rows, BATCH)
    benchmark(lambda: pack(split.gather(rows), True))


def test_open_a_hundred_million_rows(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    sparse_store(tmp_path / "sparse", HUNDRED_MILLION)
    store = benchmark(Store.open, tmp_path / "sparse")
    assert len(store.splits["train"]) == HUNDRED_MILLION
