"""The Trainer people know: transformers' own, with its data path, loss scale, evaluation and checkpoints replaced.

Each class below this one replaces one thing: `master_weights` (low_precision), steps that are not finite
(finite_steps), checkpoints (saving, dropin_saving), the step (steps), the evaluation (evaluating), the data (dropin).
"""

import inspect
import os
import warnings
from pathlib import Path
from typing import Any

import transformers
from transformers.integrations.integration_utils import TensorBoardCallback

from ftsys.data.store.reader import StoreSplit
from ftsys.train.trainer.arguments import TrainingArguments, are_cpu_ranks
from ftsys.train.trainer.data_path import DropInTrainer
from ftsys.train.trainer.legacy_names import OLD_TRAINER_ARGUMENTS, todays
from ftsys.train.trainer.training_step import parameters_outside_embeddings

__all__ = ["Trainer", "parameters_outside_embeddings"]

_NAMES = (
    "model", "args", "data_collator", "train_dataset", "eval_dataset", "processing_class", "model_init",
    "compute_loss_func", "compute_metrics", "callbacks", "optimizers", "optimizer_cls_and_kwargs",
    "preprocess_logits_for_metrics",
)  # fmt: skip
"""The stock constructor's arguments, in its order; a test holds them to the installed version's."""


class Trainer(DropInTrainer):
    """Constructor and methods are transformers' own; data sets may be splits of a store as well."""

    def __init__(
        self,
        model: Any = None,
        args: transformers.TrainingArguments | None = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        *stock: Any,
        **named: Any,
    ) -> None:
        """`stock` and `named` are the other arguments of `transformers.Trainer`, in its order or by name.

        `tokenizer`, as transformers 4 called `processing_class`, is taken with a warning.

        Raises:
            TypeError: an argument that does not exist, with the nearest one; or `compute_loss_func` together with a
                store: its loss is formed here, example by example.
        """
        named = todays(named, OLD_TRAINER_ARGUMENTS, frozenset(_NAMES), "Trainer", stacklevel=3)
        args = TrainingArguments(output_dir="tmp_trainer") if args is None else args
        if args.world_size == 1 and are_cpu_ranks(os.environ):  # transformers' own class: ours sees to it
            warnings.warn(
                "each process trains alone on all the data: give TrainingArguments use_cpu=True", stacklevel=2
            )
        super().__init__(model, args, data_collator, train_dataset, eval_dataset, *stock, **named)
        if isinstance(train_dataset, StoreSplit) and self.compute_loss_func is not None:
            raise TypeError("compute_loss_func is not called for a split of a store: give a data set of another kind")
        # transformers reads `**kwargs` of an encoder's forward as "scales its own loss" and multiplies loss and
        # gradient by ranks x accumulation (its issue 47688). Encoders with a classification head do not.
        if type(self.model).__name__.endswith("ForSequenceClassification"):
            self.model_accepts_loss_kwargs = False
        sets = [*eval_dataset.values()] if isinstance(eval_dataset, dict) else [eval_dataset]
        stores = [data for data in (train_dataset, *sets) if isinstance(data, StoreSplit)]
        if stores:
            self.attach_view(self.model, stores[0].tokenizer.pad_id)
        self._keep_logging_dir()

    def end(self) -> None:
        """Finish the trackers and leave the process group, also where transformers has no such method yet."""
        self.accelerator.end_training()

    def _keep_logging_dir(self) -> None:
        """`logging_dir` of transformers 4 is where TensorBoard's files go."""
        folder = getattr(self.args, "logging_dir", None)
        for callback in self.callback_handler.callbacks:
            if folder is not None and isinstance(callback, TensorBoardCallback):
                callback.logging_dir = str(Path(folder).expanduser())

    @property
    def tokenizer(self) -> Any:
        """`processing_class`, under its name in transformers 4."""
        return self.processing_class

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any) -> None:
        self.processing_class = tokenizer


# Libraries look there for the arguments that this version of transformers has, as "processing_class".
Trainer.__init__.__signature__ = inspect.signature(transformers.Trainer.__init__)  # type: ignore[attr-defined]
