"""Tests what counts as a launch, a wait and a copy from the host."""

import pytest
import torch

from ftsys.bench.launch_parts.counter import CHUNK, MOST_BLOCKS, LaunchCounter, multi_tensor_launches


def test_views_and_allocations_are_no_launches() -> None:
    x = torch.empty(4, 6)
    with LaunchCounter("cpu") as counter:
        (x.view(6, 4).t()[1:] + 1).mul_(2)
        torch.empty_like(x)
    assert counter.launches == {"add": 1, "mul_": 1}
    assert not counter.waits


def test_questions_to_the_device_are_waits() -> None:
    x = torch.ones(4, dtype=torch.int64)
    with LaunchCounter("cpu") as counter:
        x.sum().item()
        x.nonzero()
        x.repeat_interleave(x)
        x.repeat_interleave(x, output_size=4)
    assert counter.waits == {"_local_scalar_dense": 1, "nonzero": 1, "repeat_interleave": 1}


def test_copies_from_the_host_have_their_bytes() -> None:
    with LaunchCounter("meta") as counter:
        torch.ones(3).to("meta")
        torch.empty(5, dtype=torch.float64, device="meta").copy_(torch.zeros(5))
        torch.ones(3).add_(1)  # the host's own work
    assert counter.waits == {"copy from the host": 2}
    assert counter.host_bytes == 3 * 4 + 5 * 8
    assert not counter.launches


def test_literals_that_become_tensors_are_copied() -> None:
    with LaunchCounter("cpu") as counter:
        torch.tensor(0.5) + 1
    assert counter.waits == {"copy from the host": 1}
    assert counter.launches == {"add": 1}


@pytest.mark.parametrize(
    ("sizes", "lists", "launches"),
    [
        ([1] * 110, 1, 1),
        ([1] * 111, 1, 2),
        ([1] * 64, 2, 1),
        ([1] * 65, 2, 2),
        ([CHUNK * MOST_BLOCKS], 4, 1),
        ([CHUNK * MOST_BLOCKS + 1], 4, 2),
        ([CHUNK * 300, CHUNK * 21, 0, 1], 4, 2),
        ([], 1, 0),
    ],
)
def test_multi_tensor_operations_need_as_many_launches_as_their_limits_say(
    sizes: list[int], lists: int, launches: int
) -> None:
    assert multi_tensor_launches(sizes, lists) == launches


def test_lists_of_tensors_are_counted_by_their_lists() -> None:
    tensors, others = [torch.ones(2) for _ in range(70)], [torch.ones(2) for _ in range(70)]
    with LaunchCounter("cpu") as counter:
        torch._foreach_mul_(tensors, 2.0)
        torch._foreach_copy_(tensors, others)
        torch._foreach_norm(tensors)
    assert counter.launches == {"_foreach_mul_": 1, "_foreach_copy_": 2, "_foreach_norm": 3}
