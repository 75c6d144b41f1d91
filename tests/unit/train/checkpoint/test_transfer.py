"""Tests the source of a state on one rank and, with doubles of the collectives, on a rank that holds none."""

from typing import Any

import pytest
import torch

from ftsys.train.checkpoint import transfer
from ftsys.train.checkpoint.training_state import FullState
from ftsys.train.checkpoint.transfer import Source, gather, widened


def state() -> FullState:
    return FullState(
        weights={"w": torch.ones(2, 3), "v": torch.ones(1)},
        buffers={"b": torch.zeros(2, dtype=torch.int64)},
        moments={"exp_avg": {"w": torch.zeros(2, 3)}},
        numbers={"w": {"step": 3.0}},
        counters={"global_steps": 4},
    )


def test_a_state_is_described_and_read_by_kind_and_name() -> None:
    own = state()
    source = Source(own)
    assert source.names("weights") == {"w", "v"}
    assert source.names("exp_avg") == {"w"}
    assert (source.kinds("w"), source.kinds("v"), source.kinds("b")) == ({"exp_avg"}, set(), set())
    assert source.has("buffers", "b")
    assert not source.has("weights", "b")
    assert source.form("weights", "w") == ((2, 3), torch.float32)
    assert source.tensor("weights", "w") is own.weights["w"]
    assert (source.numbers, source.groups, source.counters) == (own.numbers, [], own.counters)


def test_numbers_that_are_not_finite_are_sent_as_they_are() -> None:
    own = state()
    own.numbers["w"]["largest"] = float("inf")
    assert Source(own).numbers["w"]["largest"] == float("inf")


class _Collectives:
    """Doubles of what a second rank would send, in a world of two."""

    def __init__(self, patch: pytest.MonkeyPatch, rank: int, theirs: Any, sent: torch.Tensor | None = None) -> None:
        self.sent, self.broadcasts = sent, list[torch.Tensor]()
        patch.setattr(transfer, "rank", lambda: rank)
        patch.setattr(transfer, "world_size", lambda: 2)
        patch.setattr(transfer, "dist", self)
        patch.setattr(transfer, "any_rank", lambda value, device: value)
        patch.setattr(transfer, "broadcast_json", lambda mine: mine if rank == 0 else theirs)
        patch.setattr(transfer, "collective_device", lambda: torch.device("cpu"))

    def broadcast(self, tensor: torch.Tensor, source: int) -> None:
        assert source == 0
        self.broadcasts.append(tensor)
        if self.sent is not None:
            tensor.copy_(self.sent)

    def gather(self, part: torch.Tensor, received: list[torch.Tensor] | None) -> None:
        self.broadcasts.append(part)
        for number, each in enumerate(received or []):
            each.copy_(part + 100 * number)


def test_a_rank_without_a_state_gets_each_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = transfer._describe(state())
    _Collectives(monkeypatch, 1, theirs, torch.tensor([5, 6]))
    source = Source(None)
    found = source.tensor("buffers", "b")
    assert (found.dtype, found.tolist()) == (torch.int64, [5, 6])


def test_another_state_on_a_rank_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = state(), transfer._describe(state())
    mine.numbers["w"]["step"] = 9.0
    _Collectives(monkeypatch, 1, theirs, torch.full((2, 3), 7.0))
    source = Source(mine)
    assert source.numbers == {"w": {"step": 3.0}}
    assert source.tensor("weights", "w").unique().tolist() == [7.0]
    assert mine.weights["w"].unique().tolist() == [1.0], "its own tensor is not written over"


def test_ranks_that_all_hold_the_state_send_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    own = state()
    collectives = _Collectives(monkeypatch, 1, transfer._describe(state()))
    assert Source(own).tensor("weights", "w") is own.weights["w"]
    assert collectives.broadcasts == []


@pytest.mark.parametrize("chunk", [2, 5, 100])
@pytest.mark.parametrize(
    ("dtype", "kept"),
    [(torch.bfloat16, torch.float32), (torch.float64, torch.float64), (torch.int64, torch.int64)],
)
def test_rank_0_gathers_in_chunks_and_widens(
    monkeypatch: pytest.MonkeyPatch, chunk: int, dtype: torch.dtype, kept: torch.dtype
) -> None:
    monkeypatch.setattr(transfer, "CHUNK_ELEMENTS", chunk)
    mine = torch.arange(5, dtype=dtype)
    collectives = _Collectives(monkeypatch, 0, None)
    found = gather(mine)
    assert found is not None
    assert [each.tolist() for each in found] == [[0, 1, 2, 3, 4], [100, 101, 102, 103, 104]]
    assert {each.dtype for each in found} == {kept}
    assert max(len(part) for part in collectives.broadcasts) == min(chunk, 5)
    _Collectives(monkeypatch, 1, None)
    assert gather(mine) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_rank_gathers_a_copy(dtype: torch.dtype) -> None:
    mine = torch.ones(3, dtype=dtype, requires_grad=True)
    found = gather(mine)
    assert found is not None
    assert (len(found), found[0].dtype, found[0].requires_grad) == (1, torch.float32, False)
    found[0].zero_()
    assert mine.sum() == 3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.int8])
def test_only_floats_of_16_bits_are_widened(dtype: torch.dtype) -> None:
    tensor = torch.ones(2, dtype=dtype)
    assert widened(tensor) is tensor
    assert widened(torch.ones(2, dtype=torch.float16)).dtype == torch.float32


def test_a_chunk_is_a_few_hundred_mebibytes() -> None:
    assert 1 << 24 <= transfer.CHUNK_ELEMENTS <= 1 << 28
