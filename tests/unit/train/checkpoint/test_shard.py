"""What several ranks write of a state is the whole of it, bit for bit, and no more than a share each."""

from pathlib import Path

import pytest
import torch

from ftsys.errors import CheckpointError
from ftsys.train.checkpoint import shard
from ftsys.train.checkpoint.background import bytes_of
from ftsys.train.checkpoint.catalog import Checkpoint, verify_checkpoint
from ftsys.train.checkpoint.state_dict import export_state
from ftsys.train.checkpoint.training_state import FullState, joined, label
from ftsys.train.checkpoint.writer import Draft, begin, complete, write_shard
from ftsys.train.perf.staging import StagingBuffers
from tests.distributed.tiny import Tiny, differences, train_plain
from tests.unit.train.checkpoint.test_state_dict import MAKERS, made, trained


def shares_of(model: Tiny, optimizer: torch.optim.Optimizer, ranks: int) -> list[FullState]:
    """Each rank's share of what all of them have."""
    return [share_of(model, optimizer, rank, ranks) for rank in range(ranks)]


def share_of(model: Tiny, optimizer: torch.optim.Optimizer, rank: int, ranks: int) -> FullState:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard, "rank", lambda: rank)
        patch.setattr(shard, "world_size", lambda: ranks)
        return shard.export_shard(model, optimizer)


def write_all(root: Path, shares: list[FullState]) -> Path:
    """A checkpoint as the ranks would write it."""
    draft = Draft(root, 3, "mine", 1, {})
    begin(draft)
    written = [write_shard(draft.partial, share, part, len(shares)) for part, share in enumerate(shares)]
    return complete(draft, shares[0], {name: entry for entries in written for name, entry in entries.items()})


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
@pytest.mark.parametrize("name", MAKERS)
def test_the_ranks_files_hold_the_whole_state(tmp_path: Path, name: str, ranks: int) -> None:
    model, optimizer = made(MAKERS[name], 1, torch.bfloat16)
    train_plain(model, optimizer, 0, 3)
    path = write_all(tmp_path, shares_of(model, optimizer, ranks))
    assert verify_checkpoint(path) == []
    assert differences(Checkpoint.open(path).load_state(), export_state(model, optimizer)) == []


@pytest.mark.parametrize("ranks", [1, 2, 3, 40])
def test_a_frozen_weight_that_zero_3_has_split_is_written_once(ranks: int) -> None:
    model, optimizer = trained()
    frozen, whole, shares = model.frozen.weight, model.frozen.weight.detach().clone(), []
    size = -(-whole.numel() // ranks)
    padded = torch.nn.functional.pad(whole.flatten(), (0, size * ranks - whole.numel()))
    frozen.ds_shape = whole.shape
    for rank in range(ranks):
        frozen.ds_tensor = padded[rank * size : (rank + 1) * size].clone()
        frozen.ds_tensor.ds_numel = size
        shares.append(share_of(model, optimizer, rank, ranks))
    names = [key for share in shares for key in share.weights if key.startswith("frozen.weight")]
    assert len(names) == len(set(names)) == -(-whole.numel() // size)
    parts = {key: share.weights[key] for share in shares for key in share.weights}
    assert torch.equal(joined(parts, shares[0].shapes)["frozen.weight"], whole)


def test_a_share_is_no_more_than_its_part() -> None:
    model, optimizer = trained()
    whole = bytes_of(export_state(model, optimizer))
    sizes = [bytes_of(share) for share in shares_of(model, optimizer, 3)]
    assert max(sizes) < whole / 3 + 200  # and rank 0 the buffers, and what is frozen


def test_a_missing_files_elements_are_missed(tmp_path: Path) -> None:
    path = write_all(tmp_path, shares_of(*trained(), 3))
    (path / "weights-00002-of-00003.safetensors").unlink()
    assert "weights-00002-of-00003" in verify_checkpoint(path)[0]
    with pytest.raises(CheckpointError, match="elements 2 to 4 of 'w' are in no file"):
        joined({label("w", 0, 2, 6): torch.zeros(2), label("w", 4, 2, 6): torch.zeros(2)}, {"w": [2, 3]})


def test_a_room_is_written_over_by_the_next_share() -> None:
    model, optimizer = trained()
    buffers = StagingBuffers()
    first = shard.export_shard(model, optimizer, buffers)
    train_plain(model, optimizer, 3, 4)
    second = shard.export_shard(model, optimizer, buffers)
    assert differences(second, export_state(model, optimizer)) == []
    assert second.weights["body.weight"].data_ptr() == first.weights["body.weight"].data_ptr()
    moments = (second.moments["exp_avg"]["body.weight"], second.moments["exp_avg_sq"]["body.weight"])
    assert len({second.weights["body.weight"].data_ptr(), *(moment.data_ptr() for moment in moments)}) == 3
