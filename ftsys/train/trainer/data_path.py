"""Makes the loaders of training steps and evaluation packs.

A split of a store always gets one. A data set of the user's own gets one within `train`, `evaluate` and `predict`,
where it can be packed; a loader asked for elsewhere, for example to look at a batch, is the stock one.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from ftsys.data.batching.loader import BatchSettings, EvaluationLoader, Split, StepLoader, is_split
from ftsys.data.batching.plan import EpochPlan
from ftsys.data.batching.stock_order import stock_plan
from ftsys.distributed import broadcast_object
from ftsys.errors import ConfigError
from ftsys.train.trainer.arguments import examples_per_step, setting
from ftsys.train.trainer.packing import Packing


class DataPath:
    """The splits that are trained on and evaluated, and their loaders. Its methods take the Trainer that asks."""

    def __init__(self, packing: Packing) -> None:
        """Ask `packing` which data is packed."""
        self._packing = packing
        self.training_split: Split | None = None
        """The split that training items are made of; None while data goes the stock way."""
        self.filters_logged_loss = False
        """True if the logged loss leaves out steps whose loss is not finite (`logging_nan_inf_filter`)."""
        self._evaluating = False
        self._step_examples: tuple[int | None] | None = None
        """Set while training: the Trainer's accumulation is 1 then, and its batch arithmetic would be wrong."""
        self._sampler_seed = 0

    # Training

    def step_loader(self, trainer: Trainer) -> StepLoader | None:
        """Return a loader of steps for a store's split, and within `training` for packed data; else None."""
        if is_split(trainer.train_dataset):
            self.training_split = trainer.train_dataset
            self._packing.attach_view(trainer, self.training_split)
        split = self.training_split
        if split is None:
            return None
        settings = self._batch_settings(trainer.args)
        in_stock_order = split.stock_semantics and settings.global_size is not None and settings.order == "random"
        return StepLoader(split, settings, self._stock_plans(trainer.args, split) if in_stock_order else None)

    def _stock_plans(self, args: TrainingArguments, split: Split) -> Callable[[int], EpochPlan]:
        """Return the function from an epoch to its plan in the order of the stock sampler."""
        step_examples = self.step_examples(args)
        assert step_examples is not None

        def plan(epoch: int) -> EpochPlan:
            return stock_plan(
                len(split),
                self._sampler_seed if args.data_seed is None else args.data_seed,
                epoch,
                step_examples,
                shuffled=args.train_sampling_strategy != "sequential",
                dropped_below=args.per_device_train_batch_size * args.world_size if args.dataloader_drop_last else 0,
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
        return data

    @contextlib.contextmanager
    def training(self, trainer: Trainer) -> Iterator[None]:
        """Make the training loop run over whole steps: one item a step, so its accumulation is 1 meanwhile."""
        split, args = self.split_to_train_on(trainer), trainer.args
        accumulation, self.training_split = args.gradient_accumulation_steps, split
        self.filters_logged_loss = args.logging_nan_inf_filter
        generator = torch.get_rng_state()
        if split is not None:
            self._step_examples = (examples_per_step(args),)
            args.gradient_accumulation_steps = 1
            args.logging_nan_inf_filter = False  # `loss_to_log` filters on the device; transformers waits for it twice
            self._sampler_seed = broadcast_object(torch.initial_seed())  # the stock sampler derives its order from it
        try:
            yield
        finally:
            if split is not None and split.stock_semantics:  # dropout has seeded the generator, differently by rank
                torch.set_rng_state(generator)
            args.gradient_accumulation_steps, args.logging_nan_inf_filter = accumulation, self.filters_logged_loss
            self._step_examples = None
            self.training_split = None if split is None or split.stock_semantics else split

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
            static_shapes=setting(args, "cuda_graphs"),
        )

    # Evaluation

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Mark the inside of `evaluate` and `predict`, where a data set of the user's own may be packed."""
        before, self._evaluating = self._evaluating, True
        try:
            yield
        finally:
            self._evaluating = before

    def evaluation_loader(self, trainer: Trainer, data: Any) -> EvaluationLoader | None:
        """Return a loader of packs; None for the stock loader. `data` is as of `Trainer.get_eval_dataloader`."""
        sets, name = trainer.eval_dataset, "eval"
        if isinstance(data, str) and isinstance(sets, dict):
            data, name = sets[data], data
        return self.pack_loader(trainer, sets if data is None else data, name)

    def pack_loader(self, trainer: Trainer, data: Any, name: str) -> EvaluationLoader | None:
        """Return a loader of this rank's packs of `data`, which the messages call `name`; None for the stock loader."""
        split, args = self.split_to_evaluate(trainer, data, name), trainer.args
        if split is None:
            return None
        micro_tokens, packed = setting(args, "micro_tokens"), self._packing.view is not None
        return EvaluationLoader(split, micro_tokens, args.process_index, args.world_size, packed=packed)

    def split_to_evaluate(self, trainer: Trainer, data: Any, name: str) -> Split | None:
        """Return the split of packs, or None for the stock data path."""
        if is_split(data):
            self._packing.attach_view(trainer, data)
            return data
        if data is None or not self._evaluating:
            return None
        return self._packing.packed_split(trainer, data, name, training=False)
