"""The drop-in Trainer's data: a data set of the user's own is packed where that changes nothing but the speed.

What is asked for outside of `train`, `evaluate` and `predict`, such as a loader to look at a batch, is the stock one.
"""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import torch
from transformers.trainer_utils import PredictionOutput

from ftsys.data.batching.loader import BatchSettings, Split, StepLoader
from ftsys.data.batching.plan import EpochPlan
from ftsys.data.batching.stock_order import stock_plan
from ftsys.data.store.in_memory import NotPackable, TokenizedSplit, read_tokenized
from ftsys.data.store.reader import StoreSplit
from ftsys.distributed import from_rank_0
from ftsys.errors import ConfigError
from ftsys.train.trainer.arguments import examples_per_step, setting
from ftsys.train.trainer.evaluation_loop import EvaluatingTrainer
from ftsys.train.trainer.packing_rules import check_fits, why_padded, with_labels_for

_LOG = logging.getLogger("ftsys")


class DropInTrainer(EvaluatingTrainer):
    """Takes splits of a store, and data sets of the stock Trainer, packed where they can be."""

    _evaluating = False
    _whole_step: tuple[int | None] | None = None
    _sampler_seed = 0

    def __init__(self, *stock: Any, **named: Any) -> None:
        """As transformers'."""
        super().__init__(*stock, **named)
        self.padded_reasons: list[str] = []
        self._turned: dict[tuple[Any, ...], tuple[Any, TokenizedSplit]] = {}

    # Which data is packed

    def _packed_split(self, data: Any, name: str, training: bool) -> TokenizedSplit | None:
        """`data` ready to be packed, or None; then the reason is kept, and said once."""
        reason = why_padded(self, DropInTrainer, training)
        if reason is None:
            try:
                split = self._turn(data, name)
                if training and not split.labelled:
                    raise NotPackable("the data has no labels")
                self._ready_view(split)
                return split
            except NotPackable as told:
                reason = str(told)
        self.padded_because = reason
        if reason not in self.padded_reasons:
            self.padded_reasons.append(reason)
            if self.args.process_index == 0:
                _LOG.warning("ftsys: padded batches and the stock data path, because %s", reason)
        return None

    def _turn(self, data: Any, name: str) -> TokenizedSplit:
        """`data` as a split. A `Dataset` is turned once; a list is read anew, for its rows may have changed."""
        mark = getattr(data, "_fingerprint", None)
        if mark is not None and self._key(data) in self._turned:
            return self._turned[self._key(data)][1]
        self._set_signature_columns_if_needed()
        read = read_tokenized(
            data,
            name=name,
            accepted=self._signature_columns,
            drop_others=self.args.remove_unused_columns,
            pad_id=self._pad_token(),
        )
        split = with_labels_for(read, self.model.config, loss_is_models=self.label_smoother is None)
        if mark is not None:
            self._turned[self._key(data)] = (data, split)  # the data too: its id must not become another's
        return split

    def _key(self, data: Any) -> tuple[Any, ...]:
        config = self.model.config
        return id(data), data._fingerprint, type(self.model), config.num_labels, config.problem_type

    def _pad_token(self) -> int:
        """The token that pads: the tokenizer's, else the model's; 0 where neither has one."""
        tokenizer = getattr(self.data_collator, "tokenizer", None) or self.processing_class
        known = (getattr(tokenizer, "pad_token_id", None), self.model.config.pad_token_id, 0)
        return next(int(token) for token in known if token is not None)

    def _ready_view(self, split: TokenizedSplit) -> None:
        self._view_for(split)
        assert self.view is not None  # `why_padded` has looked
        self.padded_because = None
        check_fits(split, self.model, self.view.longest)

    def _view_for(self, split: Split) -> None:
        """A model that `model_init` made since needs a view of its own."""
        if self._viewed is not self.model:
            self.attach_view(self.model, split.tokenizer.pad_id)

    # Training

    def get_train_dataloader(self) -> Any:
        """A loader of steps for a split of a store, and within `train` for what is packed; else the stock one."""
        if isinstance(self.train_dataset, StoreSplit):
            self.training_split = self.train_dataset
            self._view_for(self.training_split)
        if self.training_split is None:
            return super().get_train_dataloader()
        settings = self._batch_settings()
        stock = settings.global_size is not None and settings.order == "random"
        own_data = not isinstance(self.training_split, StoreSplit)
        return StepLoader(self.training_split, settings, self._stock_plan if stock and own_data else None)

    def _stock_plan(self, epoch: int) -> EpochPlan:
        assert self.training_split is not None
        assert self._examples_per_step is not None
        stock_batch = self.args.per_device_train_batch_size * self.args.world_size
        return stock_plan(
            len(self.training_split),
            self._sampler_seed if self.args.data_seed is None else self.args.data_seed,
            epoch,
            self._examples_per_step,
            shuffled=self.args.train_sampling_strategy != "sequential",
            dropped_below=stock_batch if self.args.dataloader_drop_last else 0,
        )

    def _inner_training_loop(
        self,
        batch_size: int | None = None,
        args: Any = None,
        resume_from_checkpoint: str | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Any:
        """transformers' loop, over whole steps where they are packed."""
        rest = {"resume_from_checkpoint": resume_from_checkpoint, "trial": trial}
        with self._training_on(self._split_to_train_on()):
            return super()._inner_training_loop(
                batch_size=batch_size, args=args, ignore_keys_for_eval=ignore_keys_for_eval, **rest
            )

    def _split_to_train_on(self) -> Split | None:
        if isinstance(self.train_dataset, StoreSplit) or self.train_dataset is None:
            if self.is_deepspeed_enabled and self.args.gradient_accumulation_steps > 1:
                raise ConfigError(
                    f"gradient_accumulation_steps={self.args.gradient_accumulation_steps!r} under DeepSpeed, which "
                    "would count them itself: give global_batch_size instead."
                )
            return self.train_dataset
        return self._packed_split(self.train_dataset, "training", training=True)

    @contextlib.contextmanager
    def _training_on(self, split: Split | None) -> Iterator[None]:
        """A step is one item of the loop: its accumulation is 1 meanwhile."""
        accumulation, self.training_split = self.args.gradient_accumulation_steps, split
        generator = torch.get_rng_state()
        if split is not None:
            self._whole_step = (examples_per_step(self.args),)
            self.args.gradient_accumulation_steps = 1
            self._sampler_seed = from_rank_0(torch.initial_seed())  # of which the stock sampler makes its order
        try:
            yield
        finally:
            if isinstance(split, TokenizedSplit):  # dropout has seeded it, on each rank in its own way
                torch.set_rng_state(generator)
            self.args.gradient_accumulation_steps = accumulation
            self._whole_step = None
            self.training_split = split if isinstance(split, StoreSplit) else None

    @property
    def _examples_per_step(self) -> int | None:
        return examples_per_step(self.args) if self._whole_step is None else self._whole_step[0]

    def get_total_train_batch_size(self, args: Any) -> int:
        """Examples of an optimizer step."""
        if self._whole_step is not None and self._whole_step[0] is not None:
            return self._whole_step[0]
        return super().get_total_train_batch_size(args)

    def _batch_settings(self) -> BatchSettings:
        grouped = self.args.train_sampling_strategy == "group_by_length"
        return BatchSettings(
            global_size=self._examples_per_step,
            global_tokens=setting(self.args, "global_batch_tokens"),
            order="length_grouped" if grouped else setting(self.args, "batch_order"),
            micro_tokens=setting(self.args, "micro_tokens"),
            seed=self._data_seed,
            rank=self.args.process_index,
            ranks=self.args.world_size,
            packed=self.view is not None,
            static_shapes=setting(self.args, "cuda_graphs"),
        )

    @property
    def _data_seed(self) -> int:
        return self.args.seed if self.args.data_seed is None else self.args.data_seed

    # Evaluation

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """As transformers'."""
        with self._evaluation():
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)

    def predict(
        self, test_dataset: Any, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> PredictionOutput:
        """As transformers'; rows come back in the order of the data, whatever the sampling strategy."""
        with self._evaluation():
            return super().predict(test_dataset, ignore_keys, metric_key_prefix)

    @contextlib.contextmanager
    def _evaluation(self) -> Iterator[None]:
        before, self._evaluating = self._evaluating, True
        try:
            yield
        finally:
            self._evaluating = before

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """A loader of packs for a split of a store, and within `evaluate` for what is packed; else the stock one."""
        data, name = self.eval_dataset if eval_dataset is None else eval_dataset, "eval"
        if isinstance(data, str) and isinstance(self.eval_dataset, dict):
            data, name = self.eval_dataset[data], data
        split = self._split_to_evaluate(data, name)
        return super().get_eval_dataloader(eval_dataset) if split is None else self.pack_loader(split)

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        """As `get_eval_dataloader`."""
        split = self._split_to_evaluate(test_dataset, "test")
        return super().get_test_dataloader(test_dataset) if split is None else self.pack_loader(split)

    def _split_to_evaluate(self, data: Any, name: str) -> Split | None:
        if isinstance(data, StoreSplit):
            self._view_for(data)
            return data
        if data is None or not self._evaluating:
            return None
        return self._packed_split(data, name, training=False)
