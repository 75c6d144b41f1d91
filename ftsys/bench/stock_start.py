"""The stock stack's start, as a script of its own: the course's recipe up to the end of its first optimizer step.

Imports nothing of ftsys. `python -P stock_start.py DATA MODEL WORK` prints the time (seconds since 1970) of the end of
that step. DATA was written by `datasets`; its tokens are taken from the cache that `map` keeps beside it.
"""

import sys
import time
from typing import Any

from datasets import load_from_disk
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

BATCH, MAX_LENGTH = 8, 128


class SayWhen(TrainerCallback):
    """Prints the time at which the first step ended."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Once: there is one step."""
        print(f"first step {time.time()}", flush=True)


def main(data: str, model: str, work: str) -> None:
    """The course's chapter 3, cut after one step."""
    tokenizer = AutoTokenizer.from_pretrained(model)

    def tokenize(rows: dict[str, list[str]]) -> Any:
        return tokenizer(rows["sentence1"], rows["sentence2"], truncation=True, max_length=MAX_LENGTH)

    texts = load_from_disk(data).map(tokenize, batched=True)
    arguments = TrainingArguments(
        output_dir=work,
        per_device_train_batch_size=BATCH,
        max_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=AutoModelForSequenceClassification.from_pretrained(model, num_labels=2),
        args=arguments,
        train_dataset=texts["train"],
        eval_dataset=texts["validation"],
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        callbacks=[SayWhen()],
    )
    trainer.train()


if __name__ == "__main__":
    main(*sys.argv[1:])
