"""Makes the loaders of training steps and evaluation packs.

A split of a store always gets one. A data set of the user's own gets one for the loop of `train`, `evaluate` and
`predict`, where it can be packed. A loader that anything else asks for, as a callback does, is the stock one.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from ftsys.data.batching.loader import BatchSettings, EvaluationLoader, Split, StepLoader, is_split
from ftsys.data.batching.plan import EpochPlan
from ftsys.data.batching.stock_order import stock_plan
from ftsys.data.store.in_memory import NotPackable
from ftsys.distributed import broadcast_json
from ftsys.errors import ConfigError, DataError
from ftsys.train.trainer.arguments import examples_per_step, setting
from ftsys.train.trainer.loss import ClassWeights
from ftsys.train.trainer.packing import Packing


class DataPath:
    """The splits that are trained on and evaluated, and their loaders. Its methods take the Trainer that asks."""

    def __init__(self, packing: Packing, class_weights: Sequence[float] | None = None) -> None:
        """Ask `packing` which data is packed; weigh the examples of a store by `class_weights`."""
        self._packing = packing
        self.class_weights = ClassWeights(class_weights)
        self.training_split: Split | None = None
        """The split that training items are made of; None while data goes the stock way."""
        self.filters_logged_loss = False
        """True if the logged loss leaves out steps whose loss is not finite (`logging_nan_inf_filter`)."""
        self._asked: dict[str, Any] = {}
        """The user's values of the arguments that are others while training, by name."""
        self._loop_asks = self._evaluation_asks = False
        """True until the loop has got its loader: others ask by the same method."""
        self._step_examples: tuple[int | None] | None = None
        """Set while training: the Trainer's accumulation is 1 then, and its batch arithmetic would be wrong."""
        self._sampler_seed = 0

    def filters_losses(self, args: Any) -> bool:
        """Return the user's `logging_nan_inf_filter`, which the arguments do not have while training."""
        return bool(args.logging_nan_inf_filter if self._step_examples is None else self.filters_logged_loss)

    # Training

    def step_loader(self, trainer: Trainer) -> StepLoader | None:
        """Return a loader of steps for a store's split, and once within `training` for packed data; else None."""
        if is_split(trainer.train_dataset):
            self.training_split = trainer.train_dataset
            self._packing.attach_view(trainer, self.training_split)
        split = self.training_split
        if split is None or (split.stock_semantics and not self._loop_asks):
            return None
        self._loop_asks = False
        settings = self._batch_settings(trainer.args)
        in_stock_order = split.stock_semantics and settings.global_size is not None and settings.order == "random"
        plans = self._stock_plans(trainer, split) if in_stock_order else None
        may_change = isinstance(trainer.train_dataset, list)
        return StepLoader(split, settings, plans, partial(self._read_again, trainer) if may_change else None)

    def _read_again(self, trainer: Trainer) -> Split:
        """Return the rows of a list as they are now. Raises DataError where they cannot be packed any more."""
        try:
            found = self._packing.read_again(trainer, trainer.train_dataset, "training")
        except NotPackable as error:
            raise DataError(
                f"the training rows were changed during the training, and cannot be packed any more: {error}. Give "
                "TrainingArguments(packing=False)."
            ) from error
        before = 0 if self.training_split is None else len(self.training_split)
        if len(found) != before:
            raise DataError(
                f"{before} training rows became {len(found)} during the training: give "
                "TrainingArguments(packing=False), or a list that keeps its length."
            )
        self.training_split = found
        return found

    def _stock_plans(self, trainer: Trainer, split: Split) -> Callable[[int], EpochPlan]:
        """Return the function from an epoch to its plan in the order of the stock sampler."""
        args, step_examples = trainer.args, self.step_examples(trainer.args)
        assert step_examples is not None

        def plan(epoch: int) -> EpochPlan:
            return stock_plan(
                len(split),
                self._sampler_seed if args.data_seed is None else args.data_seed,
                epoch,
                step_examples,
                shuffled=args.train_sampling_strategy != "sequential",
                dropped_below=trainer._train_batch_size * args.world_size if args.dataloader_drop_last else 0,
            )

        return plan

    def split_to_train_on(self, trainer: Trainer) -> Split | None:
        """Return the split that training reads, or None for the stock data path; the reason is logged.

        Raises ConfigError for a store's split with accumulation under DeepSpeed.
        """
        data, accumulation = trainer.train_dataset, trainer.args.gradient_accumulation_steps
        if data is not None and not is_split(data):
            return self._packing.packed_split(trainer, data, "training", training=True)
        if trainer.is_deepspeed_enabled and accumulation > 1:
            raise ConfigError(
                f"gradient_accumulation_steps={accumulation!r} under DeepSpeed, which would count them itself: give "
                "global_batch_size instead."
            )
        if data is not None:
            self._packing.attach_view(trainer, data)  # `model_init` has made another model since the construction
        return data

    @contextlib.contextmanager
    def training(self, trainer: Trainer) -> Iterator[None]:
        """Make the training loop run over whole steps: one item a step, so its accumulation is 1 meanwhile."""
        split, args = self.split_to_train_on(trainer), trainer.args
        self.training_split = split
        self.filters_logged_loss = args.logging_nan_inf_filter
        generator = torch.get_rng_state()
        self._loop_asks = self._packing.in_training = split is not None
        if split is not None:
            self._step_examples = (examples_per_step(args, trainer._train_batch_size),)
            # `loss_to_log` filters on the device; transformers waits for it twice.
            self._asked = _replaced(args, {"gradient_accumulation_steps": 1, "logging_nan_inf_filter": False})
            self._sampler_seed = broadcast_json(torch.initial_seed())  # the stock sampler derives its order from it
        unpadded = self._packing.unpadded(trainer, training=True) if split is None else contextlib.nullcontext()
        try:
            with unpadded, self._begins_as_asked(trainer):
                yield
        finally:
            if split is not None and split.stock_semantics:  # dropout has seeded the generator, differently by rank
                torch.set_rng_state(generator)
            _replaced(args, self._asked)
            self._asked, self._step_examples = {}, None
            self._loop_asks = self._packing.in_training = False
            self.training_split = None if split is None or split.stock_semantics else split

    @contextlib.contextmanager
    def as_asked(self, args: TrainingArguments) -> Iterator[None]:
        """Give `args` the user's values in the body, for whoever writes them down."""
        during = _replaced(args, self._asked)
        try:
            yield
        finally:
            _replaced(args, during)

    @contextlib.contextmanager
    def _begins_as_asked(self, trainer: Trainer) -> Iterator[None]:
        """Show callbacks the user's values when the training begins: trackers keep the arguments that they see then."""
        handler: Any = trainer.callback_handler
        begin = handler.on_train_begin

        def begin_as_asked(args: TrainingArguments, *event: Any, **named: Any) -> Any:
            with self.as_asked(args):
                return begin(args, *event, **named)

        handler.on_train_begin = begin_as_asked
        try:
            yield
        finally:
            del handler.on_train_begin

    def step_examples(self, args: TrainingArguments) -> int | None:
        """Return the examples of an optimizer step, or None when it is counted in tokens."""
        return examples_per_step(args) if self._step_examples is None else self._step_examples[0]

    def step_examples_in_training(self) -> int | None:
        """Return the examples of an optimizer step while one is trained on; else None."""
        return None if self._step_examples is None else self._step_examples[0]

    def _batch_settings(self, args: TrainingArguments) -> BatchSettings:
        grouped = args.train_sampling_strategy == "group_by_length"
        return BatchSettings(
            global_size=self.step_examples(args),
            global_tokens=setting(args, "global_batch_tokens"),
            order="length_grouped" if grouped else setting(args, "batch_order"),
            micro_tokens=setting(args, "micro_tokens"),
            seed=args.seed if args.data_seed is None else args.data_seed,
            rank=args.process_index,
            ranks=args.world_size,
            packed=self._packing.view is not None,
            padding_side=self._packing.padding_side,
            static_shapes=setting(args, "cuda_graphs"),
            class_weights=self.class_weights.values,
        )

    # Evaluation

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Mark the inside of `evaluate` and `predict`, where a data set of the user's own may be packed."""
        before, self._evaluation_asks = self._evaluation_asks, True
        try:
            yield
        finally:
            self._evaluation_asks = before

    def evaluation_loader(self, trainer: Trainer, data: Any, stock: Callable[[], Any]) -> EvaluationLoader | None:
        """Return a loader of packs; None for the stock loader. `data` is as of `Trainer.get_eval_dataloader`.

        `stock` makes the loader that callbacks get in its place.
        """
        sets, name = trainer.eval_dataset, "eval"
        if isinstance(data, str) and isinstance(sets, dict):
            data, name = sets[data], data
        return self.pack_loader(trainer, sets if data is None else data, name, stock)

    def pack_loader(self, trainer: Trainer, data: Any, name: str, stock: Callable[[], Any]) -> EvaluationLoader | None:
        """Return a loader of this rank's packs of `data`, which the messages call `name`; None for the stock loader."""
        split, args = self.split_to_evaluate(trainer, data, name), trainer.args
        self._evaluation_asks = False  # also for padded data: a callback may ask on one rank alone
        if split is None:
            return None
        packing, micro_tokens = self._packing, setting(args, "micro_tokens")
        return EvaluationLoader(
            split,
            micro_tokens,
            args.process_index,
            args.world_size,
            packing.view is not None,
            packing.padding_side,
            stock if split.stock_semantics else None,
        )

    def split_to_evaluate(self, trainer: Trainer, data: Any, name: str) -> Split | None:
        """Return the split of packs, or None for the stock data path."""
        if is_split(data):
            self._packing.attach_view(trainer, data)
            return data
        if data is None or not self._evaluation_asks:
            return None
        return self._packing.packed_split(trainer, data, name, training=False)


def _replaced(args: TrainingArguments, values: dict[str, Any]) -> dict[str, Any]:
    """Set attributes of `args`; returns their values before."""
    before = {name: getattr(args, name) for name in values}
    for name, value in values.items():
        setattr(args, name, value)
    return before
