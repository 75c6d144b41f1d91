"""Runs the course's recipe with the stock Trainer up to the end of its first optimizer step; a script of its own.

It imports nothing of ftsys. `python -P stock_start.py DATA MODEL WORK` prints the time at which that step ended, in
seconds since 1970. DATA was saved by `datasets`; its tokens come from the cache that `map` keeps next to it.
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
        """Print the time; called once, because there is one step."""
        print(f"first step {time.time()}", flush=True)


def main(data: str, model: str, work: str) -> None:
    """Train as in the course's chapter 3, for one step."""
    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)

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
        model=AutoModelForSequenceClassification.from_pretrained(model, num_labels=2, trust_remote_code=False),
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
