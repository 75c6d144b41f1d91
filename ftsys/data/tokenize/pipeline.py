"""Tokenizes batches of texts in a background thread while the caller uses the chunk before, in bounded memory."""

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from ftsys.cpus.usable import usable_cores
from ftsys.data.tokenize.tokenizer import Encoded, TextTokenizer

ROWS_PER_CHUNK = 4096
CHARACTERS_PER_CHUNK = 8 * 2**20
"""Bounds the memory of a chunk of long documents: the library tokenizes whole texts before it truncates."""


def encode_in_parallel(tokenizer: TextTokenizer, batches: Iterable[Any]) -> Iterator[tuple[Encoded, npt.NDArray[Any]]]:
    """Yield (Encoded, labels) of each chunk in order; up to two more chunks are tokenized while the caller uses one."""
    ahead: deque[tuple[Future[Any], npt.NDArray[Any]]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="tokenize") as pool:
        try:
            for first, second, labels in _chunks(batches):
                ahead.append((pool.submit(tokenizer.tokenize, first, second), labels))
                if len(ahead) > 2:
                    future, labels = ahead.popleft()
                    yield tokenizer.flatten(future.result()), labels
            while ahead:
                future, labels = ahead.popleft()
                yield tokenizer.flatten(future.result()), labels
        finally:
            for future, _ in ahead:
                future.cancel()


def _chunks(batches: Iterable[Any]) -> Iterator[tuple[list[str], list[str] | None, npt.NDArray[Any]]]:
    """Cut a source's batches so that a chunk has few more characters than CHARACTERS_PER_CHUNK."""
    for batch in batches:
        sizes = np.fromiter(map(len, batch.first), np.int64, len(batch.first))
        if batch.second is not None:
            sizes += np.fromiter(map(len, batch.second), np.int64, len(batch.second))
        cuts = np.flatnonzero(np.diff(np.cumsum(sizes) // CHARACTERS_PER_CHUNK)) + 1
        edges = [0, *cuts.tolist(), len(batch.first)]
        for start, end in itertools.pairwise(edges):
            yield batch.first[start:end], batch.second and batch.second[start:end], batch.labels[start:end]


@contextmanager
def library_threads() -> Iterator[None]:
    """Let the library use all CPUs that this process may keep busy, also where a launcher limits torch's threads.

    The library reads RAYON_NUM_THREADS at its first use only, and TOKENIZERS_PARALLELISM at each use. A user's own
    setting of either is kept.
    """
    os.environ.setdefault("RAYON_NUM_THREADS", str(usable_cores().usable_threads))
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("TOKENIZERS_PARALLELISM", None)  # another thread may have been faster
