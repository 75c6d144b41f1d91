"""The script of the Hugging Face course's third chapter, word for word but for the Trainer's import."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ftsys.data.sources.synthetic.sample import paraphrases
from tests.end_to_end.commands import PYTHON, call, free_port, ftsys

COURSE = """
from datasets import load_dataset
from transformers import AutoTokenizer, DataCollatorWithPadding

raw_datasets = load_dataset("glue", "mrpc")
checkpoint = "bert-base-uncased"
tokenizer = AutoTokenizer.from_pretrained(checkpoint)


def tokenize_function(example):
    return tokenizer(example["sentence1"], example["sentence2"], truncation=True)


tokenized_datasets = raw_datasets.map(tokenize_function, batched=True)
data_collator = DataCollatorWithPadding(tokenizer=tokenizer)

import evaluate
import numpy as np


def compute_metrics(eval_preds):
    metric = evaluate.load("glue", "mrpc")
    logits, labels = eval_preds
    predictions = np.argmax(logits, axis=-1)
    return metric.compute(predictions=predictions, references=labels)


from transformers import AutoModelForSequenceClassification
from transformers import TrainingArguments

training_args = TrainingArguments("test-trainer", evaluation_strategy="epoch")
model = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=2)

from transformers import Trainer

trainer = Trainer(
    model,
    training_args,
    train_dataset=tokenized_datasets["train"],
    eval_dataset=tokenized_datasets["validation"],
    data_collator=data_collator,
    tokenizer=tokenizer,
    compute_metrics=compute_metrics,
)
trainer.train()

predictions = trainer.predict(tokenized_datasets["validation"])
print(predictions.predictions.shape, predictions.label_ids.shape)

preds = np.argmax(predictions.predictions, axis=-1)

metric = evaluate.load("glue", "mrpc")
metric.compute(predictions=preds, references=predictions.label_ids)
"""
SEED = "from transformers import set_seed\nset_seed(7)\n"
"""The script draws its head's weights from no seed: without one no two runs could be compared."""
REPORT = """
import json, os
from pathlib import Path

if trainer.is_world_process_zero():
    found = {"metrics": predictions.metrics, "history": trainer.state.log_history, "reasons": trainer.padded_reasons}
    found["computed"] = metric.compute(predictions=preds, references=predictions.label_ids)
    Path(os.environ["REPORT"]).write_text(json.dumps(found))
trainer.end()
"""
IMPORTS = {
    "from transformers import TrainingArguments\n": "from ftsys import TrainingArguments\n",
    "from transformers import Trainer\n": "from ftsys import Trainer\n",
}
TRAINED, EVALUATED = 64, 408
HEADER = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"


def synthetic(split: str, count: int) -> list[str]:
    pairs = paraphrases()[{"train": "train", "dev": "validation"}[split]]
    several = [pair for _ in range(1 + count // len(pairs)) for pair in pairs][:count]
    return [f"{label}\t1\t2\t{first}\t{second}" for first, second, label in several]


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hugging Face's caches, filled from local files by one command: few rows to train on, MRPC's 408 to evaluate."""
    source = os.environ.get("FTSYS_GLUE_DIR")
    folder = tmp_path_factory.mktemp("course")
    (folder / "glue/MRPC").mkdir(parents=True)
    for split, count in (("train", TRAINED), ("dev", EVALUATED), ("test", 3)):
        if source:
            lines = (Path(source) / f"MRPC/{split}.tsv").read_text(encoding="utf-8").splitlines()[1 : count + 1]
        else:
            lines = synthetic("dev" if split == "test" else split, count)
        (folder / f"glue/MRPC/{split}.tsv").write_text(HEADER + "\n".join(lines) + "\n", encoding="utf-8")
    done = ftsys("offline-assets", "--glue-dir", folder / "glue", "--hf-home", folder / "home", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "home"


def run_script(folder: Path, caches: Path, model: Path, *launcher: str, batch: str = "") -> dict[str, Any]:
    """The script's report; `batch` is what its arguments name beside the course's."""
    text = COURSE
    for theirs, ours in IMPORTS.items():
        assert theirs in text
        text = text.replace(theirs, ours)
    text = text.replace('"bert-base-uncased"', repr(str(model)))
    text = text.replace('evaluation_strategy="epoch"', f'evaluation_strategy="epoch"{batch}')
    (folder / "course.py").write_text(SEED + text + REPORT)
    offline = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE"), "1")
    where = {
        "HF_HOME": str(caches),
        "REPORT": str(folder / "report.json"),
        "CUDA_VISIBLE_DEVICES": "",
        "DS_ACCELERATOR": "cpu",
    }
    done: subprocess.CompletedProcess[str] = call(*launcher, folder / "course.py", cwd=folder, **offline, **where)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report | {"stdout": done.stdout, "stderr": done.stderr}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, caches: Path, tiny_model: Path) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("alone")
    return run_script(folder, caches, tiny_model, f"{PYTHON}/python") | {"folder": folder}


def test_the_script_runs_as_it_is(alone: dict[str, Any]) -> None:
    assert "(408, 2) (408,)" in alone["stdout"]
    assert alone["reasons"] == []
    assert set(alone["computed"]) == {"accuracy", "f1"}
    assert alone["metrics"]["test_accuracy"] == alone["computed"]["accuracy"]
    epochs = [line for line in alone["history"] if "eval_accuracy" in line]
    assert [(line["epoch"], line["step"]) for line in epochs] == [(1.0, 8), (2.0, 16), (3.0, 24)]
    assert epochs[-1]["eval_f1"] == alone["computed"]["f1"]


def test_old_names_are_warned_of_once(alone: dict[str, Any]) -> None:
    for name in ("evaluation_strategy", "tokenizer"):
        assert alone["stderr"].count(f"{name!r} is a name of transformers 4") == 1


@pytest.mark.long
@pytest.mark.parametrize("launcher", ["torchrun", "deepspeed"])
def test_two_ranks_learn_the_same(
    launcher: str, alone: dict[str, Any], caches: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """The same examples in a step: four a rank in place of eight. Dropout is on."""
    words = {
        "torchrun": ["torchrun", "--nproc-per-node", "2", "--master-port", free_port()],
        "deepspeed": ["deepspeed", "--num_gpus", "2", "--master_port", free_port()],
    }[launcher]
    found = run_script(tmp_path, caches, tiny_model, *words, batch=", per_device_train_batch_size=4")
    assert found["stdout"].count("(408, 2) (408,)") == 2
    assert found["reasons"] == []
    names = ("eval_loss", "eval_accuracy", "eval_f1", "grad_norm", "step")
    both = [
        [{name: line[name] for name in names if name in line} for line in report["history"]]
        for report in (alone, found)
    ]
    for one, other in zip(*both, strict=True):
        assert other == pytest.approx(one, rel=1e-2)
    assert found["computed"] == pytest.approx(alone["computed"], abs=2 / EVALUATED)
