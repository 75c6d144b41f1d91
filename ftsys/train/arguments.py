"""`TrainingArguments` with what this project adds to transformers' own, and with the names of transformers 4."""

import dataclasses
import inspect
from dataclasses import dataclass, field
from typing import Any

import transformers

from ftsys.train.old_names import KEPT_AS_ATTRIBUTES, OLD_ARGUMENTS, todays


@dataclass
class _Arguments(transformers.TrainingArguments):
    """The fields."""

    global_batch_size: int | None = field(
        default=None,
        metadata={
            "help": "Examples an optimizer step sees, whatever the ranks; None: per device x ranks x accumulation."
        },
    )
    global_batch_tokens: int | None = field(
        default=None, metadata={"help": "Real tokens an optimizer step sees at most, in place of a number of examples."}
    )
    batch_order: str = field(default="random", metadata={"help": "'random' or 'length_grouped'."})
    micro_tokens: int = field(default=16_384, metadata={"help": "Real tokens a device computes at once."})
    kernels: str = field(default="auto", metadata={"help": "The attention kernel: 'auto', or a name to demand it."})
    master_weights: bool = field(
        default=False, metadata={"help": "bf16 weights with float32 masters in AdamW, in place of autocast."}
    )
    max_nonfinite_steps: int = field(
        default=20, metadata={"help": "Steps in a row that may be skipped because a loss or gradient is not finite."}
    )
    packing: bool = field(default=True, metadata={"help": "Feed packed batches where the model can take them."})


class TrainingArguments(_Arguments):
    """transformers' arguments, and how steps are made. Defaults follow the stock batch arithmetic.

    Names that transformers 5 dropped (`evaluation_strategy`, `no_cuda`, `warmup_ratio`, ...) keep their old meaning,
    each with one warning that gives today's name.
    """

    logging_dir: str | None = None
    overwrite_output_dir: bool = False

    def __init__(self, *positional: Any, **named: Any) -> None:
        """Arguments are the fields, in their order or by name.

        Raises:
            TypeError: a name that neither transformers 5 nor 4 has, with the nearest known one.
            ValueError: a dropped name whose value cannot be honoured, or what transformers refuses.
        """
        known = frozenset(each.name for each in dataclasses.fields(_Arguments) if each.init)
        super().__init__(*positional, **todays(named, OLD_ARGUMENTS, known, "TrainingArguments", stacklevel=3))
        for name in KEPT_AS_ATTRIBUTES:
            if name in named:
                setattr(self, name, named[name])

    @property
    def examples_per_step(self) -> int | None:
        """Examples of a global batch, or None when it is counted in tokens."""
        return examples_per_step(self)


TrainingArguments.__signature__ = inspect.signature(_Arguments)  # for help() and editors


def setting(arguments: transformers.TrainingArguments, name: str) -> Any:
    """One of our own settings, its default where the arguments are transformers' own class."""
    return getattr(arguments, name, getattr(TrainingArguments, name))


def examples_per_step(arguments: transformers.TrainingArguments) -> int | None:
    """Examples of a global batch under ours or the stock arguments, or None when it is counted in tokens."""
    if setting(arguments, "global_batch_tokens") is not None:
        return None
    stock = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    return setting(arguments, "global_batch_size") or stock
