"""The stock Hugging Face Trainer on a GLUE task, one process: the recipe that ftsys' own quality is held against.

Imports nothing of ftsys. Writes one JSON line a seed, so that an interrupted sweep loses one seed at most.

    python benchmarks/stock_glue.py mrpc GLUE_DIR MODEL_DIR --batch-size 8 --seeds 1 2 3 4 5 --out stock.jsonl
"""

import argparse
import csv
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

Metrics = dict[str, float]
TASKS: dict[str, dict[str, Any]] = {
    "mrpc": {"folder": "MRPC", "text": ("#1 String", "#2 String"), "label": "Quality"},
    "rte": {
        "folder": "RTE",
        "text": ("sentence1", "sentence2"),
        "label": "label",
        "names": ["entailment", "not_entailment"],
    },
    "cola": {
        "folder": "CoLA",
        "text": ("sentence",),
        "label": "label",
        "header": ["source", "label", "star", "sentence"],
    },
    "sst2": {"folder": "SST-2", "text": ("sentence",), "label": "label"},
    "stsb": {"folder": "STS-B", "text": ("sentence1", "sentence2"), "label": "score"},
}


def read(task: dict[str, Any], path: Path) -> Dataset:
    """A GLUE file's own TSV layout as the course's columns; STS-B's label is a number, the others' a class id."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream, task.get("header"), delimiter="\t", quoting=csv.QUOTE_NONE))
    columns = {f"sentence{index + 1}": [row[name] for row in rows] for index, name in enumerate(task["text"])}
    words = [row[task["label"]] for row in rows]
    if task["folder"] == "STS-B":
        return Dataset.from_dict({**columns, "label": [float(word) for word in words]})
    return Dataset.from_dict(
        {**columns, "label": [task["names"].index(w) if "names" in task else int(w) for w in words]}
    )


def metrics_of(task: str, logits: np.ndarray, labels: np.ndarray) -> Metrics:
    """GLUE's own metrics."""
    if task == "stsb":
        scores = logits.squeeze(-1)
        return {"pearson": pearsonr(scores, labels)[0], "spearmanr": spearmanr(scores, labels)[0]}
    classes = np.argmax(logits, axis=-1)
    if task == "cola":
        return {"matthews_correlation": matthews_corrcoef(labels, classes)}
    found = {"accuracy": accuracy_score(labels, classes)}
    return {**found, "f1": f1_score(labels, classes)} if task == "mrpc" else found


def model_of(options: argparse.Namespace, labels: int) -> Any:
    """The model; with --lora, peft's adapters on all linear layers of its attentions (of a BERT), alpha 16."""
    model = AutoModelForSequenceClassification.from_pretrained(
        options.model, num_labels=labels, trust_remote_code=False
    )
    if options.lora is None:
        return model
    from peft import LoraConfig, get_peft_model

    targets = ["query", "key", "value", "attention.output.dense"]
    return get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=options.lora, lora_alpha=16, target_modules=targets))


def train_once(options: argparse.Namespace, seed: int) -> dict[str, object]:
    """The course's chapter 3, one seed: returns validation metrics and seconds of training."""
    task = TASKS[options.task]
    tokenizer = AutoTokenizer.from_pretrained(options.model, trust_remote_code=False)

    def tokens(rows: dict[str, Any]) -> Any:
        texts = [rows[f"sentence{index + 1}"] for index in range(len(task["text"]))]
        return tokenizer(*texts, truncation=True, max_length=128)

    texts = {name: read(task, options.glue / task["folder"] / f"{name}.tsv") for name in ("train", "dev")}
    if options.train_rows:
        texts["train"] = texts["train"].take(options.train_rows)
    sets = {name: rows.map(tokens, batched=True) for name, rows in texts.items()}
    arguments = TrainingArguments(
        output_dir=f"{options.out}.work",
        per_device_train_batch_size=options.batch_size,
        num_train_epochs=options.epochs,
        max_steps=options.max_steps,
        learning_rate=options.learning_rate,
        seed=seed,
        bf16=options.precision == "bf16",
        train_sampling_strategy=options.order,
        use_cpu=options.cpu,
        save_strategy="no",
        logging_steps=100,
        report_to="none",
        disable_tqdm=True,
    )
    set_seed(seed)  # before the head is made, so that the seed decides its weights too
    labels = 1 if options.task == "stsb" else 2
    trainer = Trainer(
        model=model_of(options, labels),
        args=arguments,
        train_dataset=sets["train"],
        eval_dataset=sets["dev"],
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        compute_metrics=lambda found: metrics_of(options.task, found.predictions, found.label_ids),
    )
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    found = {name.removeprefix("eval_"): float(value) for name, value in trainer.evaluate().items()}
    metrics = {
        name: found[name]
        for name in ("accuracy", "f1", "matthews_correlation", "pearson", "spearmanr")
        if name in found
    }
    fixed = {"task": options.task, "batch_size": options.batch_size, "order": options.order, "seed": seed}
    return {**fixed, "metrics": metrics, "eval_loss": found["loss"], "train_s": seconds}


def main() -> None:
    """Run every seed and append its line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=sorted(TASKS))
    parser.add_argument("glue", type=Path)
    parser.add_argument("model")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--max-steps", type=int, default=-1, help="in place of --epochs")
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--train-rows", type=int, help="the first rows of the training split only")
    parser.add_argument("--lora", type=int, metavar="R", help="train adapters of this rank, made by peft")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--order", choices=("random", "group_by_length"), default="random")
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU even if there is one")
    parser.add_argument("--out", type=Path, required=True, help="a line is appended for each seed")
    options = parser.parse_args()
    for seed in options.seeds:
        line = json.dumps(train_once(options, seed))
        print(line, flush=True)
        with options.out.open("a") as stream:
            stream.write(line + "\n")


if __name__ == "__main__":
    main()
