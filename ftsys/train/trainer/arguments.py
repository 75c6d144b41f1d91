"""Defines `TrainingArguments`: transformers' own with this project's settings, and with the names of transformers 4."""

import inspect
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import transformers
from transformers.utils import is_torch_xla_available

from ftsys.train.dropin_deepspeed import prepare_for_script
from ftsys.train.trainer.legacy_names import KEPT_AS_ATTRIBUTES, OLD_ARGUMENTS, todays

_LOG = logging.getLogger(__name__)


class _TakesOldNames(type):
    """Metaclass that translates old names to today's, also for a script's own subclass, dataclass or not."""

    @property
    def __signature__(cls) -> inspect.Signature:
        """Signature of `__init__`, for help() and editors."""
        return inspect.Signature(_constructor(cls)[1:])

    def __call__(cls, *positional: Any, **named: Any) -> Any:
        taken = _constructor(cls)[1:]
        known = {each.name for each in taken}
        if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in taken):
            known |= named.keys() - OLD_ARGUMENTS.keys()  # a script's own __init__ checks these itself
        today = todays(named, OLD_ARGUMENTS, frozenset(known), cls.__name__, stacklevel=3)
        made = super().__call__(*positional, **today)
        for name in KEPT_AS_ATTRIBUTES:
            if name in named:
                setattr(made, name, named[name])
        return made


def _constructor(made: Any) -> list[inspect.Parameter]:
    """Return the parameters of a class's `__init__`, `self` first."""
    return list(inspect.signature(made.__init__).parameters.values())


@dataclass(repr=False)  # transformers' own `__repr__` hides tokens
class TrainingArguments(transformers.TrainingArguments, metaclass=_TakesOldNames):
    """transformers' arguments, and how steps are made. Defaults follow the stock batch arithmetic.

    Names that transformers 5 dropped (`evaluation_strategy`, `no_cuda`, `warmup_ratio`, ...) keep their old meaning,
    each with one warning that gives today's name.

    Raises, when it is made:
        TypeError: a name that neither transformers 5 nor 4 has, with the nearest known one.
        ValueError: a dropped name whose value cannot be honoured, or what transformers refuses.
    """

    logging_dir: ClassVar[str | None] = None
    overwrite_output_dir: ClassVar[bool] = False

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
    compile_regions: bool = field(
        default=False, metadata={"help": "Have torch.compile fuse dropout, residual and LayerNorm of packed batches."}
    )
    cuda_graphs: bool = field(
        default=False, metadata={"help": "Record the passes of packed batches on a GPU, and replay them."}
    )
    master_weights: bool = field(
        default=False, metadata={"help": "bf16 weights with float32 masters in AdamW, in place of autocast."}
    )
    layer_decay: float = field(
        default=1.0, metadata={"help": "Factor on the learning rate from each layer to the one below it."}
    )
    max_nonfinite_steps: int = field(
        default=20, metadata={"help": "Steps in a row that may be skipped because a loss or gradient is not finite."}
    )
    save_stock_state: bool = field(
        default=False,
        metadata={"help": "Checkpoints also hold optimizer.pt and scheduler.pt, from which the stock Trainer resumes."},
    )
    packing: bool = field(default=True, metadata={"help": "Feed packed batches where the model can take them."})

    def __post_init__(self) -> None:
        """Make several ranks on a machine without an accelerator CPU ranks of one world; else as transformers'.

        Without use_cpu=True the stock class would have each rank train alone on all the data, without a warning.
        """
        if are_cpu_ranks(os.environ):
            self.use_cpu = True
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay={self.layer_decay!r} must be above 0, and 1 (no decay) at most")
        if self.save_stock_state and self.deepspeed:
            raise ValueError(
                "save_stock_state=True writes torch's optimizer.pt, and DeepSpeed has a layout of its own: leave it out"
            )
        prepare_for_script(self, os.environ)
        super().__post_init__()


RECOMPUTATION = (
    "activation_checkpointing" if hasattr(TrainingArguments, "activation_checkpointing") else "gradient_checkpointing"
)
"""The argument that computes activations again, by its name in this transformers: it has a new one since 5.23."""


def are_cpu_ranks(environment: Mapping[str, str]) -> bool:
    """Return True where a launcher started several processes and there is no accelerator."""
    several = int(environment.get("WORLD_SIZE", "1")) > 1
    return several and not torch.accelerator.is_available() and not is_torch_xla_available()


def use_one_gpu(arguments: transformers.TrainingArguments) -> None:
    """Make one process that sees several GPUs use the first one, and log how to use them all.

    transformers would wrap the model in `nn.DataParallel`, which cannot split packed batches and whose parameter names
    begin with "module.", also in the saved model.
    """
    seen = arguments.n_gpu
    if seen > 1:
        arguments._n_gpu = 1
        _LOG.warning(
            "this process sees %d GPUs and trains on the first one. To use all of them, start one process for each: "
            "ftlaunch run, or torchrun --nproc-per-node %d",
            seen,
            seen,
        )


def setting(arguments: transformers.TrainingArguments, name: str) -> Any:
    """Return one of our own settings; its default where the arguments are transformers' own class."""
    return getattr(arguments, name, getattr(TrainingArguments, name))


def examples_per_step(arguments: transformers.TrainingArguments, device_batch: int | None = None) -> int | None:
    """Return the examples of a global batch under our or the stock arguments; None when it is counted in tokens.

    `device_batch` is a Trainer's own batch per device: it is settled when the Trainer is made.
    """
    if setting(arguments, "global_batch_tokens") is not None:
        return None
    device_batch = device_batch or arguments.per_device_train_batch_size
    stock = device_batch * arguments.gradient_accumulation_steps * arguments.world_size
    return setting(arguments, "global_batch_size") or stock
