"""Batches from a store: packed and padded hold the same examples, and nothing but them."""

import numpy as np
import pytest
import torch

from ftsys.data.batching.collate import NO_EXAMPLE, PackedBatch, PaddedBatch, filled_up
from ftsys.data.batching.loader import LOCAL_BATCH, BatchMaker, BatchSettings, EvaluationLoader, StepLoader
from ftsys.data.batching.plan import plan_epoch
from ftsys.data.store.reader import Ragged, Store, StoreSplit
from tests.distributed.tiny_run import ROWS, make_store


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> StoreSplit:
    return Store.open(make_store(tmp_path_factory.mktemp("stores"))).splits["train"]


def test_a_packed_batch_is_the_examples_one_behind_the_other(split: StoreSplit) -> None:
    ids = np.array([5, 0, 17])
    batch = BatchMaker(split, packed=True)(ids)
    assert isinstance(batch, PackedBatch)
    rows = [split[int(index)] for index in ids]
    assert batch.token_type_ids_T is not None
    assert batch.input_ids_T.tolist() == [token for row in rows for token in row["input_ids"]]
    assert batch.token_type_ids_T.tolist() == [kind for row in rows for kind in row["token_type_ids"]]
    assert batch.position_ids_T.tolist() == [at for row in rows for at in range(len(row["input_ids"]))]
    assert batch.cu_seqlens.tolist() == [0, *np.cumsum([len(row["input_ids"]) for row in rows]).tolist()]
    assert batch.max_seqlen == max(len(row["input_ids"]) for row in rows)
    assert batch.labels_S.tolist() == [row["labels"] for row in rows]
    assert batch.example_ids_S.tolist() == ids.tolist()
    assert (batch.input_ids_T.dtype, batch.cu_seqlens.dtype) == (torch.int64, torch.int32)


def test_a_padded_batch_is_the_stock_one(split: StoreSplit) -> None:
    ids = np.array([5, 0, 17])
    batch = BatchMaker(split, packed=False)(ids)
    assert isinstance(batch, PaddedBatch)
    for row, tokens, mask in zip(ids, batch.input_ids_SL.tolist(), batch.attention_mask_SL.tolist(), strict=True):
        expected = split[int(row)]["input_ids"]
        assert tokens == expected + [split.tokenizer.pad_id] * (len(tokens) - len(expected))
        assert mask == [1] * len(expected) + [0] * (len(tokens) - len(expected))


@pytest.mark.parametrize("packed", [True, False])
def test_no_examples_make_a_filler_of_one_token(split: StoreSplit, packed: bool) -> None:
    batch = BatchMaker(split, packed)(np.empty(0, dtype=np.int64))
    assert batch.example_ids_S.tolist() == [NO_EXAMPLE]
    assert batch.computed_tokens == 1


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_the_ranks_share_each_step_of_the_plan(split: StoreSplit, ranks: int) -> None:
    loaders = [StepLoader(split, BatchSettings(10, None, "random", 40, 3, rank, ranks, True)) for rank in range(ranks)]
    for loader in loaders:
        loader.set_epoch(1)
    plan = plan_epoch(split.lengths, 3, 1, global_size=10)
    assert [len(loader) for loader in loaders] == [len(plan)] * ranks
    for k, items in enumerate(zip(*loaders, strict=True)):
        shares = [item[LOCAL_BATCH] for item in items]
        assert sorted(np.concatenate([share.example_ids for share in shares])) == sorted(plan.step(k))
        assert len({len(share.micro_batches) for share in shares}) == 1


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_evaluation_shows_every_example_once(split: StoreSplit, ranks: int) -> None:
    loaders = [EvaluationLoader(split, 60, rank, ranks, packed=True) for rank in range(ranks)]
    batches = [list(loader) for loader in loaders]
    assert len({len(found) for found in batches}) == 1
    ids = torch.cat([batch.example_ids_S for found in batches for batch in found])
    assert sorted(ids[ids != NO_EXAMPLE].tolist()) == list(range(ROWS["train"]))


def test_the_number_of_tokens_is_one_of_few_and_the_fillers_stand_for_nothing(split: StoreSplit) -> None:
    make_batch = BatchMaker(split, packed=True)
    real, computed, counts = 0, 0, set[int]()
    for start in range(26):
        ids = np.arange(start, start + 20)
        batch = make_batch(ids)
        assert isinstance(batch, PackedBatch)
        tokens = int(split.lengths[ids].sum())
        assert batch.example_ids_S[:20].tolist() == ids.tolist()
        assert set(batch.example_ids_S[20:].tolist()) <= {NO_EXAMPLE}
        assert batch.cu_seqlens[20] == tokens
        assert batch.cu_seqlens[-1] == batch.input_ids_T.numel() == batch.position_ids_T.numel()
        assert batch.max_seqlen == split.lengths[ids].max()
        counts, real, computed = counts | {batch.input_ids_T.numel()}, real + tokens, computed + batch.computed_tokens
    assert all(count % 4 == 0 for count in counts)
    assert real < computed < real * 1.02


def test_long_fillers_are_cut_to_the_longest_sequence() -> None:
    rows = Ragged(
        tokens=np.arange(257, dtype=np.uint16),
        lengths=np.array([2, *[3] * 85], dtype=np.int32),
        first_lengths=np.ones(86, dtype=np.int32),
        labels=np.zeros(86, dtype=np.int64),
        example_ids=np.arange(86),
        positions=np.zeros(257, dtype=np.int64),
        cu_seqlens=np.array([0, 2, *range(5, 258, 3)], dtype=np.int32),
    )
    filled = filled_up(rows, token=7)
    assert filled.lengths[86:].tolist() == [3, 3, 1]
    assert filled.cu_seqlens[86:].tolist() == [257, 260, 263, 264]
    assert filled.positions[257:].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert filled.tokens[257:].tolist() == [7] * 7
    assert filled.tokens.dtype == np.uint16
