"""Tests what a machine is refused for before anything is started there."""

import pytest

from ftsys.errors import LaunchError
from launcher.host.preflight import check_machine
from launcher.protocol import Message

SLICES = ("MIG-7a1e8a6c-2f7e-5d29-9b0d-2d9b1a1f5a10", "MIG-0f3b5b0e-6f4c-5a53-8d35-ff1d9c8e2b11")


def asking(ranks: int | None) -> Message:
    return {"files": [], "ranks": ranks}


def test_more_ranks_than_gpus() -> None:
    with pytest.raises(LaunchError, match=r"4 ranks were requested on .*: write --gpus-per-node, or --cpu"):
        check_machine(asking(4), ("0", "1"))
    check_machine(asking(None), ("0", "1"))
    check_machine(asking(4), ())


@pytest.mark.parametrize("ranks", [None, 2])
def test_a_rank_on_each_slice_of_a_gpu(ranks: int | None) -> None:
    """CUDA shows a process one slice only, whichever are named, so the second rank would find no GPU."""
    with pytest.raises(LaunchError, match=r"2 ranks on .* need a GPU each\. .*'MIG-7a.*,MIG-0f.*' names MIG slices"):
        check_machine(asking(ranks), SLICES)
    check_machine(asking(1), SLICES)
    check_machine(asking(None), SLICES[:1])
