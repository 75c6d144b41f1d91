"""Values that ranks exchange: they come back as they were or are refused on every rank, and none is ever pickled."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed import distributed_c10d

from ftsys.config import build_run
from ftsys.distributed import agreed, all_gather_json, broadcast_json, decided_by_rank_0, rank
from ftsys.errors import DamagedError, DataError, FtsysError, StorageError
from tests.distributed.tiny_run import make_store, train_and_evaluate
from tests.distributed.worlds import World

Worlds = Callable[[int], World]
EXACT: list[Any] = [
    None, True, 0, -(2**70), 0.1, 5e-324, 1.7976931348623157e308, -0.0, math.inf, -math.inf, "", "é\0\udcff", [[], {}],
    {"a": {"": [1, 1.0, "1", None]}}, 2**64 - 1, "x" * 100_000,
]  # fmt: skip


@contextmanager
def no_pickles() -> Iterator[None]:
    """Let torch's collectives for objects fail in the block."""

    def refused(*arguments: Any) -> None:
        raise AssertionError("a message between ranks was pickled, or read from a pickle")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("_object_to_tensor", "_tensor_to_object"):
            patch.setattr(distributed_c10d, name, refused)
        yield


def exchanged() -> tuple[list[Any], list[Any], list[Any], bool]:
    with no_pickles():
        sent = [broadcast_json(value if rank() == 0 else object()) for value in EXACT]
        gathered = [all_gather_json(value if rank() == 0 else [rank()] * 1000) for value in EXACT]
        firsts, others = [found[0] for found in gathered], [found[1:] for found in gathered]
        return sent, firsts, others, math.isnan(broadcast_json(math.nan))


@pytest.mark.parametrize("ranks", [1, 3])
def test_values_come_back_as_they_were(world: Worlds, ranks: int) -> None:
    for sent, firsts, others, is_nan in world(ranks).run(exchanged):
        for found in (sent, firsts):
            assert list(map(repr, found)) == list(map(repr, EXACT)), "types, and the sign of zero"
        assert others == [[[number] * 1000 for number in range(1, ranks)]] * len(EXACT)
        assert is_nan


LOST = [(1, 2), {"a": [{1: 2}]}, Path("x"), b"x", {3}, np.int64(3), torch.ones(1), StorageError("x")]


def refusals() -> list[str]:
    found = []
    for value in LOST:
        for exchange in (broadcast_json, all_gather_json, lambda own: decided_by_rank_0(lambda: own)):
            with pytest.raises(TypeError, match="cannot be sent as JSON: convert it before") as raised:
                exchange(value if rank() == 0 else None)
            found.append(str(raised.value))
    return found


def test_what_json_cannot_hold_is_refused_on_every_rank(world: Worlds) -> None:
    first, second = world(2).run(refusals)
    assert first == second
    assert first[0] == "rank 0: (1, 2) of type tuple cannot be sent as JSON: convert it before"
    assert first[3] == "rank 0: 1 of type int cannot be sent as JSON: convert it before"
    assert len(first) == 3 * len(LOST)


def ends(together: bool, failing: tuple[int, ...]) -> tuple[str, str, bool, bool]:
    """How a rank sees the errors of `failing` ranks: class, text, whether it is its own object, and who prints it."""
    own = [DamagedError, ZeroDivisionError, DataError][rank()](f"of rank {rank()}")

    def work() -> int:
        if rank() in failing:
            raise own
        return rank()

    try:
        with no_pickles():
            value = agreed(work) if together else decided_by_rank_0(work)
    except (FtsysError, ZeroDivisionError) as error:
        return type(error).__name__, str(error), error is own, getattr(error, "told", False)
    return "", str(value), False, False


def test_an_error_of_rank_0_is_raised_everywhere_as_what_it_is(world: Worlds) -> None:
    damaged = ("DamagedError", "of rank 0")
    for together in (True, False):
        assert world(3).run(ends, together, (0,)) == [(*damaged, number == 0, True) for number in range(3)]


def test_a_result_is_rank_0s_or_each_ranks_own(world: Worlds) -> None:
    assert world(3).run(ends, True, ()) == [("", str(number), False, False) for number in range(3)]
    assert world(3).run(ends, False, ()) == [("", "0", False, False)] * 3


def test_of_several_errors_that_of_the_lowest_rank_is_raised(world: Worlds) -> None:
    assert world(3).run(ends, True, (2,)) == [("DataError", "of rank 2", number == 2, True) for number in range(3)]
    assert {found[:2] for found in world(3).run(ends, True, (0, 2))} == {("DamagedError", "of rank 0")}


def test_a_mistake_in_the_program_reaches_the_other_ranks_too(world: Worlds) -> None:
    told = ("FtsysError", "rank 1 failed: ZeroDivisionError: of rank 1", False, True)
    assert world(3).run(ends, True, (1,)) == [told, ("ZeroDivisionError", "of rank 1", True, False), told]


def users() -> dict[str, Any]:
    """What each part of a training exchanges that no other test of this module calls."""
    from ftsys.kernels.select import choose_kernel
    from ftsys.train.callbacks.energy import Reading
    from ftsys.train.checkpoint.rng_state import gather_rng_states, write_rng_state
    from ftsys.train.checkpoint.training_state import FullState
    from ftsys.train.checkpoint.transfer import Source
    from ftsys.train.fault_tolerance.heartbeat import Heartbeat
    from ftsys.train.finish import RankFacts, _of_all_ranks
    from ftsys.train.planning import check_planned_alike, check_same_run, rank_world
    from ftsys.train.trainer.nonfinite_steps import _ids_of_all_ranks
    from launcher.planner.plan import make_plan

    run = build_run({"output_dir": "run", "task": {"name": "mrpc"}})
    heartbeat = Heartbeat(lambda *_: None, lambda *_: None, lambda: None, dict)
    state = FullState(weights={"w": torch.full((2, 3), 7.0, dtype=torch.float64)}, numbers={"w": {"step": 3.0}})
    with no_pickles():
        heartbeat.connect(rank(), 2)
        heartbeat.close()
        check_same_run(run, "a" * 64)
        check_planned_alike(make_plan(run, rank_world(), train_rows=100))
        states = gather_rng_states()
        source = Source(state if rank() == 0 else None)
        losses = [(torch.tensor([1.0, math.nan]), torch.tensor([2 * rank(), 2 * rank() + 1]))]
        found = {
            "kernel": choose_kernel("auto", "cpu"),
            "weights": source.tensor("weights", "w"),
            "numbers": source.numbers,
            "ids": _ids_of_all_ranks(losses),
            "readings": _of_all_ranks(Reading("cpu", "rapl", 1 / 3 if rank() else None, "no")),
            "facts": _of_all_ranks(RankFacts(rank(), "host", 3, 4, [(1, 2, 3)])),
        }
    torch.rand(1)
    write_rng_state(states[rank()])
    return found | {"states": states, "restored": gather_rng_states() == states}


def test_no_part_of_a_training_pickles_its_messages(world: Worlds) -> None:
    from ftsys.run_folder.report_facts import RankFacts
    from ftsys.train.callbacks.energy import Reading

    first, second = world(2).run(users)
    assert first["kernel"] == second["kernel"]
    assert first["states"] == second["states"]
    assert isinstance(first["states"][1]["numpy"], tuple)
    for found in (first, second):
        assert (found["weights"].dtype, found["weights"].unique().tolist()) == (torch.float64, [7.0])
        assert (found["numbers"], found["ids"], found["restored"]) == (
            {"w": {"step": 3.0}},
            ([1, 3], [0, 1, 2, 3]),
            True,
        )
        assert found["readings"] == [Reading("cpu", "rapl", None, "no"), Reading("cpu", "rapl", 1 / 3, "no")]
        assert found["facts"] == [RankFacts(number, "host", 3, 4, [(1, 2, 3)]) for number in range(2)]


def trained(store: Path, scratch: Path, options: dict[str, Any]) -> tuple[list[float], dict[str, float]]:
    with no_pickles():
        found = train_and_evaluate(store, scratch, options)
    return found["losses"], found["metrics"]


@pytest.mark.parametrize("stage", [None, 1])
def test_a_whole_training_with_saves_pickles_no_message(world: Worlds, tmp_path: Path, stage: int | None) -> None:
    options = {"stage": stage, "save_strategy": "steps", "save_steps": 2}
    first, second = world(2).run(trained, make_store(tmp_path / "stores"), tmp_path / "run", options)
    assert first == second
    assert len(first[0]) == 5


def odd_metrics(store: Path, scratch: Path, given: Any) -> dict[str, Any]:
    from tests.distributed.tiny_run import make_trainer

    trainer = make_trainer(store, scratch)
    trainer.compute_metrics = lambda _: {"given": given}
    try:
        return {"given": trainer.evaluate()["eval_given"]}
    except FtsysError as error:
        return {type(error).__name__: str(error)}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (np.float32(0.5), {"given": 0.5}),
        (np.arange(3), {"given": [0, 1, 2]}),
        ((1, "a"), {"given": [1, "a"]}),
        (Path, {"ConfigError": "Return numbers, text, or lists of them."}),
    ],
    ids=["number", "array", "tuple", "object"],
)
def test_metrics_of_a_user_go_to_every_rank(world: Worlds, tmp_path: Path, given: Any, found: dict[str, Any]) -> None:
    store = make_store(tmp_path / "stores")
    for seen in world(2).run(odd_metrics, store, tmp_path / "run", given):
        assert seen.keys() == found.keys()
        (value,) = seen.values()
        (expected,) = found.values()
        assert value == expected or (isinstance(value, str) and value.endswith(expected))
