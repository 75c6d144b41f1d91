"""Defines the Trainer that people import: transformers' constructor and methods, and names of transformers 4."""

import inspect
import os
import warnings
from collections.abc import Sequence
from typing import Any

import transformers
from transformers.integrations.integration_utils import TensorBoardCallback

from ftsys.files.paths import expanded
from ftsys.train.dropin_deepspeed import fill_silent_keys, prepare_for_script
from ftsys.train.perf.cpu_threads import limit_threads
from ftsys.train.scheduler_world import ALONE, tasks_started
from ftsys.train.trainer.arguments import TrainingArguments, are_cpu_ranks, use_one_gpu
from ftsys.train.trainer.checkpointers.interface import Checkpointer
from ftsys.train.trainer.composed import ComposedTrainer
from ftsys.train.trainer.hooks import RunHooks
from ftsys.train.trainer.legacy_names import OLD_TRAINER_ARGUMENTS, accept_old_methods, is_old, todays

_NAMES = (
    "model", "args", "data_collator", "train_dataset", "eval_dataset", "processing_class", "model_init",
    "compute_loss_func", "compute_metrics", "callbacks", "optimizers", "optimizer_cls_and_kwargs",
    "preprocess_logits_for_metrics",
)  # fmt: skip
"""The stock constructor's arguments, in its order; a test compares them with the installed version's."""


class Trainer(ComposedTrainer):
    """Constructor and methods are transformers' own; data sets may be splits of a store as well."""

    def __init_subclass__(cls, **more: Any) -> None:
        """Let a subclass override methods with their parameters of transformers 4."""
        super().__init_subclass__(**more)
        accept_old_methods(cls)

    def __init__(
        self,
        model: Any = None,
        args: transformers.TrainingArguments | None = None,
        *stock: Any,
        checkpointer: Checkpointer | None = None,
        hooks: RunHooks | None = None,
        class_weights: Sequence[float] | None = None,
        **named: Any,
    ) -> None:
        """`stock` and `named` are the other arguments of `transformers.Trainer`, in its order or by name.

        `tokenizer`, the name of `processing_class` in transformers 4, is accepted with a warning. `checkpointer`
        (default: checkpoints in the stock layout) and `hooks` (default: none) are for a run with a run folder;
        `class_weights`, a number for each label, for training on a split of a store (see `loss_per_example`).

        Raises:
            TypeError: an argument that does not exist, with the nearest one; or `compute_loss_func` together with a
                store: its loss is formed here, example by example; or `class_weights` without a store.
        """
        named = todays(named, OLD_TRAINER_ARGUMENTS, frozenset(_NAMES), "Trainer", stacklevel=3)
        args = TrainingArguments(output_dir="tmp_trainer") if args is None else args
        if args.world_size == 1 and are_cpu_ranks(os.environ):  # transformers' own class: ours sets use_cpu itself
            warnings.warn(
                "each process trains alone on all the data: give TrainingArguments use_cpu=True", stacklevel=2
            )
        if args.world_size == 1 and (started := tasks_started(os.environ)) is not None:
            warnings.warn(
                f"{started[0].program} started {started[1]} tasks, and each trains alone on all the data: for one "
                f"world of ranks start the script with torchrun; where that is meant, set {ALONE}=alone",
                stacklevel=2,
            )
        if getattr(model, "hf_device_map", None) is None:  # else the model itself lies on several GPUs
            use_one_gpu(args)
        limit_threads(os.environ)
        prepare_for_script(args, os.environ)  # again, for transformers' own class of arguments
        own: dict[str, Any] = {"checkpointer": checkpointer, "hooks": hooks, "class_weights": class_weights}
        super().__init__(model, args, *stock, **own, **named)
        if is_old(type(self).compute_loss):  # it returns the mean of a batch, which is to be divided by accumulation
            self.model_accepts_loss_kwargs = False
        self._keep_logging_dir()

    def create_accelerator_and_postprocess(self) -> None:
        """Complete the DeepSpeed JSON as well, that of the arguments or of `accelerate launch`, before its engine."""
        super().create_accelerator_and_postprocess()
        if (plugin := getattr(self.accelerator.state, "deepspeed_plugin", None)) is not None:
            fill_silent_keys(plugin.hf_ds_config.config, self.args.max_grad_norm)

    def end(self) -> None:
        """Finish the trackers and leave the process group, also where transformers has no such method yet."""
        self.accelerator.end_training()

    def _keep_logging_dir(self) -> None:
        """Write TensorBoard's files to `logging_dir`, an argument of transformers 4."""
        folder = getattr(self.args, "logging_dir", None)
        for callback in self.callback_handler.callbacks:
            if folder is not None and isinstance(callback, TensorBoardCallback):
                callback.logging_dir = str(expanded(folder))

    @property
    def padded_reasons(self) -> list[str]:
        """Each reason why data went the stock, padded way; empty where all was packed."""
        return self.parts.packing.padded_reasons

    @property
    def tokenizer(self) -> Any:
        """`processing_class`, under its name in transformers 4."""
        return self.processing_class

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any) -> None:
        self.processing_class = tokenizer


# Libraries look there for the arguments that this version of transformers has, as "processing_class".
Trainer.__init__.__signature__ = inspect.signature(transformers.Trainer.__init__)  # type: ignore[attr-defined]
