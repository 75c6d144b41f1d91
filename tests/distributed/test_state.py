"""The state of every engine comes out whole and goes back bit for bit, into the same engine or another."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from ftsys.errors import CheckpointError
from ftsys.train.checkpoint.catalog import Checkpoint
from ftsys.train.checkpoint.shard import export_shard
from ftsys.train.checkpoint.state_dict import export_state, import_state
from ftsys.train.checkpoint.training_state import FullState, joined
from ftsys.train.checkpoint.writer import save_checkpoint
from ftsys.train.deepspeed_setup import prepare_deepspeed
from tests.distributed.tiny import Tiny, adamw, build, differences, train_engine, train_plain
from tests.distributed.worlds import World

Worlds = Callable[[int], World]
NAMES = {
    "embed.weight", "body.weight", "body.bias", "frozen.weight", "frozen.bias", "norm.weight", "norm.bias",
    "back.weight", "back.bias", "head.weight", "head.bias",
}  # fmt: skip


def live_weights(engine: Any) -> list[torch.Tensor]:
    """What forward passes read on this rank: whole parameters, or this rank's parts, unpadded, at stage 3."""
    live = []
    for parameter in engine.module.parameters():
        part = getattr(parameter, "ds_tensor", None)
        if part is None:
            live.append(parameter.detach())
        else:
            live.append(part[: max(0, parameter.ds_numel - distributed.get_rank() * part.numel())])
    return live


def from_all_ranks(share: FullState) -> list[FullState]:
    """Every rank's share, by rank."""
    shares: list[FullState] = [share] * distributed.get_world_size()
    distributed.all_gather_object(shares, share)
    return shares


def from_shares(shares: list[FullState]) -> FullState:
    """The whole state, from what each rank would write of it."""
    state = shares[0]
    state.weights = joined({key: tensor for share in shares for key, tensor in share.weights.items()}, state.shapes)
    for kind in state.moments:
        parts = {key: tensor for share in shares for key, tensor in share.moments[kind].items()}
        state.moments[kind] = joined(parts, state.shapes)
    return state


def go_on(stage: int, precision: str, zero: dict[str, Any]) -> tuple[list[str], bool, int]:
    """Train 3, export, train 3; then a new engine, and the same one, import and train the same 3. What differs?"""
    engine = build(stage, precision, seed=1, **zero)
    train_engine(engine, 0, 3)
    saved = export_state(engine, engine.optimizer)
    shares = from_all_ranks(export_shard(engine))
    apart = differences(from_shares(shares), saved) if distributed.get_rank() == 0 else []
    losses = train_engine(engine, 3, 6)
    fresh = build(stage, precision, seed=2, **zero)
    import_state(fresh, fresh.optimizer, saved)
    same = train_engine(fresh, 3, 6) == losses
    same &= all(map(torch.equal, live_weights(engine), live_weights(fresh)))
    found = differences(export_state(engine), export_state(fresh))
    # Back to the third step in the engine that has gone on, as for the best weights at the end of a run.
    import_state(engine, None, saved)
    same &= train_engine(engine, 3, 6) == losses
    return found + apart, same, len(saved.weights)


MATRIX = [
    *((stage, precision, {}) for stage in (0, 1, 2, 3) for precision in ("fp32", "bf16")),
    (1, "bf16", {"fp32_gradients": True}),
    (2, "bf16", {"round_robin_gradients": True}),
    (3, "bf16", {"sub_group_size": 40}),
    (2, "bf16", {"offload_optimizer": {"device": "cpu"}}),
]


@pytest.mark.parametrize(("stage", "precision", "zero"), MATRIX, ids=str)
def test_a_run_goes_on_bit_for_bit(world: Worlds, stage: int, precision: str, zero: dict[str, Any]) -> None:
    answers = world(2).run(go_on, stage, precision, zero)
    assert [answer[0] for answer in answers] == [[], []]
    assert [answer[1] for answer in answers] == [True, True]
    assert [answer[2] for answer in answers] == [len(NAMES), 0]


def trained(stage: int, precision: str, steps: int) -> FullState:
    engine = build(stage, precision, seed=1)
    train_engine(engine, 0, steps)
    return export_state(engine)


def taken_over(stage: int, precision: str, state: FullState, everywhere: bool) -> list[str]:
    engine = build(stage, precision, seed=2)
    first = distributed.get_rank() == 0
    import_state(engine, None, state if first or everywhere else None)
    taken = export_state(engine)
    train_engine(engine, 3, 4)
    return differences(taken, state) if first else []


@pytest.mark.parametrize(("ranks", "stage", "precision"), [(1, 0, "fp32"), (2, 1, "bf16"), (3, 3, "bf16")])
def test_a_state_fits_any_stage_and_world(world: Worlds, ranks: int, stage: int, precision: str) -> None:
    state = world(2).run(trained, 2, "bf16", 3)[0]
    assert set(state.weights) == NAMES
    assert set(state.moments) == {"exp_avg", "exp_avg_sq"}
    assert set(state.moments["exp_avg"]) == NAMES - {"frozen.weight", "frozen.bias"}
    assert {value["step"] for value in state.numbers.values()} == {3.0}
    assert all(found == [] for found in world(ranks).run(taken_over, stage, precision, state, ranks == 2))


def ddp_goes_on() -> tuple[list[str], list[str]]:
    """As `go_on`, with DDP and a plain optimizer; rank 0 alone holds the state."""
    first, ranks = distributed.get_rank() == 0, distributed.get_world_size()
    torch.manual_seed(1)
    model = DistributedDataParallel(Tiny())
    optimizer = adamw(model)
    train_plain(model, optimizer, 0, 3, distributed.get_rank(), ranks)
    saved = export_state(model, optimizer)
    train_plain(model, optimizer, 3, 6, distributed.get_rank(), ranks)
    torch.manual_seed(2 + distributed.get_rank())
    fresh = DistributedDataParallel(Tiny())
    fresh_optimizer = adamw(fresh)
    import_state(fresh, fresh_optimizer, saved if first else None)
    train_plain(fresh, fresh_optimizer, 3, 6, distributed.get_rank(), ranks)
    # Taken from the module, each rank reads its own: all must have gone on alike.
    shares = from_all_ranks(export_shard(model, optimizer))
    assert all(share.weights for share in shares)
    assert not first or differences(from_shares(shares), export_state(model, optimizer)) == []
    live = FullState(weights=dict(model.module.named_parameters()))
    other = FullState(weights=dict(fresh.module.named_parameters()))
    return differences(live, other), differences(export_state(model, optimizer), export_state(fresh, fresh_optimizer))


def test_ddp_goes_on_bit_for_bit(world: Worlds) -> None:
    assert world(2).run(ddp_goes_on) == [([], []), ([], [])]


def refused_everywhere() -> str:
    """Import a state that does not fit, known to rank 0 alone; every rank must raise the same."""
    engine = build(3, "fp32", seed=1)
    train_engine(engine, 0, 1)
    saved = export_state(engine)
    state = saved if distributed.get_rank() == 0 else None
    if state is not None:
        del state.weights["head.bias"]
        state.numbers["body.bias"]["step"] = 9.0
    with pytest.raises(CheckpointError) as caught:
        import_state(engine, None, state)
    with pytest.raises(CheckpointError, match="rank 0 holds no state"):
        import_state(engine, None, None)
    return str(caught.value)


def test_a_state_that_does_not_fit_is_refused_on_every_rank(world: Worlds) -> None:
    answers = world(2).run(refused_everywhere)
    assert answers[0] == answers[1]
    assert "('head.bias') missing" in answers[0]
    assert "'step' differs between parameters" in answers[0]


ROWS_A_STEP = 6


def through_the_trainer(folder: str) -> list[str]:
    """transformers' Trainer, ZeRO 2, bf16: 4 steps; and 2 steps, a file, a new Trainer for the 2 others."""
    whole = bert_state(folder, 0, 4, resume=None)
    half = bert_state(folder, 0, 2, resume=None)
    if distributed.get_rank() == 0:
        save_checkpoint(Path(folder), 2, half, {}, "mine", 1)
    distributed.barrier()
    rest = bert_state(folder, 2, 4, resume=Path(folder) / "step-000002")
    assert distributed.get_rank() > 0 or differences(whole, half), "two more steps changed nothing"
    return differences(whole, rest)


def bert_state(folder: str, first: int, last: int, resume: Path | None) -> FullState:
    """The state of a tiny BERT after steps first to last - 1 of the Trainer, from a file or from its seed."""
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

    prepare_deepspeed()

    class Resuming(Trainer):
        def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
            prepared = super()._prepare_for_training(*args, **kwargs)
            if resume is not None:
                import_state(self.model_wrapped, self.optimizer, Checkpoint.open(resume).load_state())
            return prepared

        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(rows)

    zero = {"zero_optimization": {"stage": 2}, "bf16": {"enabled": True}, "gradient_clipping": 1.0}
    arguments = TrainingArguments(
        folder, max_steps=last - first, per_device_train_batch_size=ROWS_A_STEP // 2, learning_rate=0.01, bf16=True,
        lr_scheduler_type="constant", use_cpu=True, report_to=[], save_strategy="no", logging_strategy="no",
        disable_tqdm=True, deepspeed={**zero, "train_micro_batch_size_per_gpu": "auto"}, dataloader_pin_memory=False,
    )  # fmt: skip
    torch.manual_seed(4 if resume is None else 5)
    sizes = {"vocab_size": 30, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(
        **sizes, intermediate_size=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=2
    )
    ids = torch.randint(0, 30, (4 * ROWS_A_STEP, 7), generator=torch.Generator().manual_seed(0))
    rows = [{"input_ids": row, "labels": int(row[0]) % 2} for row in ids[first * ROWS_A_STEP :]]
    trainer = Resuming(BertForSequenceClassification(config), arguments, train_dataset=rows)
    trainer.train()
    return export_state(trainer.model_wrapped, trainer.optimizer)


def test_the_trainer_goes_on_bit_for_bit(world: Worlds, tmp_path: Path) -> None:
    assert world(2).run(through_the_trainer, str(tmp_path)) == [[], []]
