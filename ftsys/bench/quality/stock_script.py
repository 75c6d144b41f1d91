"""Trains with the stock Trainer, and writes a line for each evaluation. It imports nothing of ftsys.

`python -P stock_script.py SETTINGS.json`. The settings are the folder of the texts (`datasets` saved them), the model's
folder, the file for the lines, and the recipe.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import disable_progress_bars, load_from_disk
from sklearn.metrics import accuracy_score, f1_score
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

METRICS = {"accuracy": accuracy_score, "f1": f1_score}


class Lines(TrainerCallback):
    """Appends step, time and metrics of each evaluation to a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.last = path, -1

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Append a line. The time is that of the metrics, in seconds since 1970."""
        self.last = state.global_step
        found = {name: metrics[f"eval_{name}"] for name in METRICS if f"eval_{name}" in metrics}
        with self.path.open("a") as stream:
            stream.write(json.dumps({"step": state.global_step, "time": time.time(), **found}) + "\n")


def main(settings: dict[str, Any]) -> None:
    """Train as in the course's chapter 3, with the batch, order, format and rate of the settings."""
    disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(settings["model"], trust_remote_code=False)

    def tokenize(rows: dict[str, list[str]]) -> Any:
        return tokenizer(rows["sentence1"], rows["sentence2"], truncation=True, max_length=settings["max_length"])

    def metrics_of(found: Any) -> dict[str, float]:
        classes = np.argmax(found.predictions, axis=-1)
        return {name: float(METRICS[name](found.label_ids, classes)) for name in settings["metrics"]}

    data = load_from_disk(settings["data"]).map(tokenize, batched=True)
    arguments = TrainingArguments(
        output_dir=settings["work"],
        use_cpu=not torch.cuda.is_available(),
        eval_strategy="steps",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **settings["arguments"],
    )
    set_seed(arguments.seed)  # before the head is made, so that the seed decides its weights too
    lines = Lines(Path(settings["lines"]))
    trainer = Trainer(
        model=AutoModelForSequenceClassification.from_pretrained(
            settings["model"], num_labels=2, trust_remote_code=False, **settings["dropouts"]
        ),
        args=arguments,
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        compute_metrics=metrics_of,
        callbacks=[lines],
    )
    trainer.train()
    if lines.last != trainer.state.global_step:
        trainer.evaluate()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
