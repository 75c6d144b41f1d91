"""Chunks of texts are cut to a size that bounds the memory, and none is lost or reordered."""

import os

import numpy as np
import pytest

from ftsys.data.sources.rows import TextBatch
from ftsys.data.tokenize import pipeline


def test_long_texts_are_cut_into_small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "CHARACTERS_PER_CHUNK", 100)
    batches = [TextBatch(0, ["a" * size for size in (30, 30, 30, 250, 10, 10)], ["b"] * 6, np.arange(6))]
    chunks = list(pipeline._chunks(batches))
    assert [label for _, _, labels in chunks for label in labels.tolist()] == list(range(6))
    assert [len(first) for first, _, _ in chunks] == [3, 3]
    assert all(second == ["b"] * len(first) for first, second, _ in chunks)


def test_two_threads_may_leave_the_librarys_settings_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    with pipeline.library_threads():
        del os.environ["TOKENIZERS_PARALLELISM"]  # as another thread does that leaves first
    assert "TOKENIZERS_PARALLELISM" not in os.environ
