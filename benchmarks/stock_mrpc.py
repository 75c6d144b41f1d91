"""The stock Hugging Face Trainer on MRPC, one process: the recipe that ftsys' own quality figures are held against.

Imports nothing of ftsys. Writes one JSON line a seed, so that an interrupted sweep loses one seed at most.

    python benchmarks/stock_mrpc.py GLUE_DIR MODEL_DIR --batch-size 8 --seeds 1 2 3 4 5 --out stock.jsonl
"""

import argparse
import csv
import json
import time
from pathlib import Path

import numpy as np
from datasets import Dataset
from sklearn.metrics import accuracy_score, f1_score
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)


def read_mrpc(path: Path) -> Dataset:
    """MRPC's own TSV layout (Quality, #1 ID, #2 ID, #1 String, #2 String) as the course's columns."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    return Dataset.from_dict(
        {
            "sentence1": [row["#1 String"] for row in rows],
            "sentence2": [row["#2 String"] for row in rows],
            "label": [int(row["Quality"]) for row in rows],
        }
    )


def compute_metrics(prediction: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    """GLUE's two metrics for MRPC."""
    logits, labels = prediction
    classes = np.argmax(logits, axis=-1)
    return {"accuracy": accuracy_score(labels, classes), "f1": f1_score(labels, classes)}


def train_once(options: argparse.Namespace, seed: int) -> dict[str, object]:
    """The course's chapter 3, one seed: returns validation metrics and seconds of training."""
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    sets = {
        split: read_mrpc(options.glue / "MRPC" / f"{name}.tsv").map(
            lambda rows: tokenizer(rows["sentence1"], rows["sentence2"], truncation=True, max_length=128), batched=True
        )
        for split, name in (("train", "train"), ("validation", "dev"))
    }
    arguments = TrainingArguments(
        output_dir=f"{options.out}.work",
        per_device_train_batch_size=options.batch_size,
        num_train_epochs=3,
        learning_rate=5e-5,
        seed=seed,
        bf16=options.precision == "bf16",
        use_cpu=options.cpu,
        save_strategy="no",
        logging_steps=100,
        report_to="none",
        disable_tqdm=True,
    )
    from transformers import set_seed

    set_seed(seed)  # before the head is made, so that the seed decides its weights too
    trainer = Trainer(
        model=AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=2),
        args=arguments,
        train_dataset=sets["train"],
        eval_dataset=sets["validation"],
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        compute_metrics=compute_metrics,
    )
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    metrics = trainer.evaluate()
    return {
        "recipe": "stock",
        "batch_size": options.batch_size,
        "precision": options.precision,
        "seed": seed,
        "accuracy": metrics["eval_accuracy"],
        "f1": metrics["eval_f1"],
        "eval_loss": metrics["eval_loss"],
        "train_s": seconds,
    }


def main() -> None:
    """Run every seed and append its line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("glue", type=Path)
    parser.add_argument("model")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU even if there is one")
    parser.add_argument("--out", type=Path, default=Path("stock.jsonl"))
    options = parser.parse_args()
    for seed in options.seeds:
        line = json.dumps(train_once(options, seed))
        print(line, flush=True)
        with options.out.open("a") as stream:
            stream.write(line + "\n")


if __name__ == "__main__":
    main()
