"""`TrainingArguments` with what this project adds to transformers' own."""

from dataclasses import dataclass, field

import transformers


@dataclass
class TrainingArguments(transformers.TrainingArguments):
    """transformers' arguments, and how steps are made from a store. Defaults follow the stock batch arithmetic."""

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

    @property
    def examples_per_step(self) -> int | None:
        """Examples of a global batch, or None when it is counted in tokens."""
        if self.global_batch_tokens is not None:
            return None
        stock = self.per_device_train_batch_size * self.gradient_accumulation_steps * self.world_size
        return self.global_batch_size or stock
