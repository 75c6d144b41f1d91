"""Loads the items that the Trainer iterates over: a rank's local batch of a step, or an evaluation pack."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeGuard

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from ftsys.data.batching.collate import Batch, filled_to, filled_up, filler_rows, pack, pad
from ftsys.data.batching.plan import EpochPlan, LocalPlan, plan_epoch, plan_evaluation, plan_local_batch, plan_padded
from ftsys.data.batching.size_buckets import SAMPLE_STEPS, SizeBuckets
from ftsys.data.store.in_memory import TokenizedSplit
from ftsys.data.store.reader import Ragged, StoreSplit

Split = StoreSplit | TokenizedSplit
"""The source of a loader: a split of a store, or rows that the user tokenized.

`stock_semantics` says which rules training and evaluation follow: those of transformers' Trainer in every detail
(order of examples, label smoothing in evaluation, types of predictions), or this project's own.
"""

PlanOfEpoch = Callable[[int], EpochPlan]
Reread = Callable[[], Split]

LOCAL_BATCH = "ftsys_local_batch"
"""The only key of a training item. The Trainer needs a dictionary, and would read other keys as its own."""


def is_split(data: Any) -> TypeGuard[StoreSplit]:
    """Return True for a data set that is a split already, False for one that must be read as one first."""
    return isinstance(data, StoreSplit)


@dataclass(frozen=True)
class BatchSettings:
    """Settings that decide the steps and their micro-batches; exactly one of the global sizes is given."""

    global_size: int | None
    global_tokens: int | None
    order: str
    micro_tokens: int
    seed: int
    rank: int
    ranks: int
    packed: bool
    padding_side: str = "right"
    static_shapes: bool = False
    """True to fill packed batches up to the few sizes of `SizeBuckets`."""
    class_weights: tuple[float, ...] | None = None
    """The weight of each class; it has no effect on a step's weight where labels are not class ids."""


@dataclass(frozen=True)
class LocalBatch:
    """One rank's local batch of a step, ready to compute, and figures of the whole step."""

    micro_batches: list[Batch]
    example_ids: np.ndarray
    step_examples: int
    step_tokens: int
    imbalance: float
    step_weight: float
    """The divisor of the step's loss: the sum of the weights of all its examples, which is their number without any."""


class BatchMaker:
    """Makes batches of one split's rows in the model's layout, packed or padded."""

    def __init__(self, split: Split, packed: bool, padding_side: str = "right") -> None:
        """Take the padding token and the use of token types from the split's tokenizer facts."""
        self.split, self.packed, facts = split, packed, split.tokenizer
        self.lay_out: Callable[..., Batch] = partial(pack, with_token_types=facts.emits_token_types)
        if not packed:
            types, pad_id = facts.emits_token_types, facts.pad_id
            self.lay_out = partial(pad, with_token_types=types, pad_id=pad_id, side=padding_side)
        self.filler = filler_rows(facts.pad_id, split.labels_of([]))
        self.buckets: SizeBuckets | None = None

    def __call__(self, example_ids: np.ndarray) -> Batch:
        """Return the batch of these examples; a filler batch for no examples."""
        rows = self.split.gather(example_ids) if len(example_ids) else self.filler
        if not self.packed:
            return self.lay_out(rows)
        size = self.buckets.tokens_for(rows) if self.buckets is not None else None
        return self.lay_out(filled_up(rows, self.split.tokenizer.pad_id)) if size is None else self._static(rows, size)

    def _static(self, rows: Ragged, size: int) -> Batch:
        assert self.buckets is not None
        facts, longest = self.split.tokenizer, self.buckets.longest
        batch = pack(filled_to(rows, facts.pad_id, size, longest), facts.emits_token_types)
        return replace(batch, max_seqlen=longest, is_static=True)


class _StepSampler(Sampler[list[tuple[int, int]]]):
    """Yields steps as (epoch, k), so that a resume skips a few integers and no data."""

    def __init__(self, steps: "_Steps") -> None:
        self.steps = steps
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.steps.read_again()

    def __len__(self) -> int:
        return len(self.steps.plan(self.epoch))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for k in range(len(self)):
            yield [(self.epoch, k)]


class _Steps(Dataset[dict[str, LocalBatch]]):
    """Maps (epoch, k) to the local batch of that step. Its length is the number of examples, as the Trainer expects."""

    def __init__(
        self, split: Split, settings: BatchSettings, plan_of_epoch: PlanOfEpoch | None, reread: Reread | None
    ) -> None:
        self.split, self.settings, self._reread = split, settings, reread
        self.make_batch = BatchMaker(split, settings.packed, settings.padding_side)
        self.plan_of_epoch = plan_of_epoch or self._own_plan
        self._plan: tuple[int, EpochPlan] | None = None
        sample = list(self._sample()) if settings.static_shapes and settings.packed else []
        if sample:
            self.make_batch.buckets = SizeBuckets.of(split.lengths, sample)

    def read_again(self) -> None:
        """Take the rows as they are now, where they may have changed."""
        if self._reread is not None:
            self.split = self.make_batch.split = self._reread()

    def plan(self, epoch: int) -> EpochPlan:
        """Return the epoch's plan; it is computed once."""
        if self._plan is None or self._plan[0] != epoch:
            self._plan = (epoch, self.plan_of_epoch(epoch))
        return self._plan[1]

    def _own_plan(self, epoch: int) -> EpochPlan:
        settings = self.settings
        return plan_epoch(
            self.split.lengths,
            settings.seed,
            epoch,
            global_size=settings.global_size,
            global_tokens=settings.global_tokens,
            order=settings.order,
        )

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, name: tuple[int, int]) -> dict[str, LocalBatch]:
        ids = self.plan(name[0]).step(name[1])
        local = self._local_plan(ids)
        return {
            LOCAL_BATCH: LocalBatch(
                [self.make_batch(part) for part in local.micro_batches],
                np.concatenate(local.micro_batches),
                local.step_examples,
                local.step_tokens,
                local.imbalance,
                self._weight(ids),
            )
        }

    def _weight(self, ids: np.ndarray) -> float:
        """Return the sum of the weights of these examples, which every rank computes alike from the store."""
        weights = self.settings.class_weights
        if weights is None:
            return float(len(ids))
        labels = self.split.labels_of(ids)
        return float(np.array(weights)[labels].sum() if labels.ndim == 1 else len(ids))

    def _local_plan(self, ids: np.ndarray) -> LocalPlan:
        settings = self.settings
        return plan_local_batch(ids, self.split.lengths[ids], settings.rank, settings.ranks, settings.micro_tokens)

    def _sample(self) -> Iterator[np.ndarray]:
        """Yield the micro-batches of epoch 0's first steps, in whichever epoch this attempt begins."""
        for k in range(min(SAMPLE_STEPS, len(self.plan(0)))):
            yield from self._local_plan(self.plan(0).step(k)).micro_batches


class StepLoader(DataLoader[dict[str, LocalBatch]]):
    """Yields one item per optimizer step. It is a `DataLoader`, so that the Trainer's own resume can skip steps."""

    def __init__(
        self,
        split: Split,
        settings: BatchSettings,
        plan_of_epoch: PlanOfEpoch | None = None,
        reread: Reread | None = None,
    ) -> None:
        """Use `plan_of_epoch` in place of the plan that the settings describe, if it is given.

        `reread`, for rows that may change, returns the same number of rows as a split at the beginning of each epoch.
        """
        steps = _Steps(split, settings, plan_of_epoch, reread)
        super().__init__(steps, batch_sampler=_StepSampler(steps), collate_fn=_only)

    def set_epoch(self, epoch: int) -> None:
        """Continue with the plan of `epoch`."""
        self.batch_sampler.set_epoch(epoch)


def _only(items: list[dict[str, LocalBatch]]) -> dict[str, LocalBatch]:
    (item,) = items
    return item


class EvaluationLoader:
    """Yields the packs that this rank evaluates: every `ranks`-th of the global plan, so that lengths are balanced.

    All ranks have the same number of packs: a rank with one pack less gets a filler.
    """

    def __init__(
        self,
        split: Split,
        pack_tokens: int,
        rank: int,
        ranks: int,
        packed: bool,
        padding_side: str = "right",
        stock: Callable[[], Any] | None = None,
    ) -> None:
        """Plan packs of at most `pack_tokens` tokens, padding included. `stock` makes the loader of `for_callbacks`."""
        self._stock = stock
        self.dataset = split
        self.packs = (plan_evaluation if packed else plan_padded)(split.lengths, pack_tokens)
        self.rank, self.ranks = rank, ranks
        self.make_batch = BatchMaker(split, packed, padding_side)

    def for_callbacks(self) -> Any:
        """Return what callbacks get: a new loader of stock batches, or this one for a store, which has no other."""
        return self if self._stock is None else self._stock()

    def __len__(self) -> int:
        """Return the number of packs that a rank computes."""
        return -(-len(self.packs) // self.ranks)

    def __iter__(self) -> Iterator[Batch]:
        """Yield this rank's packs, longest examples first."""
        nothing = np.empty(0, dtype=np.int64)
        for first in range(0, len(self.packs), self.ranks):
            index = first + self.rank
            yield self.make_batch(self.packs[index] if index < len(self.packs) else nothing)
