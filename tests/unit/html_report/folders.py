"""Writes small run folders for the tests of reports and of `ftsys watch`: no training, no torch."""

import json
from pathlib import Path
from typing import Any

RUN_FILE = """output_dir = {output_dir}
[task]
name = "mood"
columns = ["text"]
labels = {labels}
[data]
source = {{ train = {train}, validation = {validation} }}
[model]
name = {model}
[train]
seed = {seed}
epochs = 2.0
"""
LABELS = ["bad", "good"]
TEXTS = ["so good & so on", "not <script>alert(1)</script> bad", "bad, $x$ as it goes", "good"]


def write_run(
    folder: Path, seed: int = 1, labels: list[str] | None = None, model: str = "models/tiny", finished: bool = True
) -> Path:
    """Write a run of the task "mood" with four validation examples, of which it gets two wrong; returns the folder."""
    labels = LABELS if labels is None else labels
    data = folder.parent / f"data-{len(labels)}"
    data.mkdir(parents=True, exist_ok=True)
    rows = [(text, labels[number % len(labels)]) for number, text in enumerate(TEXTS)]
    for split in ("train", "validation"):
        (data / f"{split}.jsonl").write_text("".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in rows))
    (folder / "predictions").mkdir(parents=True)
    values = {"output_dir": str(folder), "labels": labels, "model": model, "seed": seed}
    values |= {split: str(data / f"{split}.jsonl") for split in ("train", "validation")}
    (folder / "config.toml").write_text(RUN_FILE.format(**{key: json.dumps(value) for key, value in values.items()}))
    write_json(folder / "plan.json", {"ranks": 1, "device": "cpu", "total_steps": 20, "rank_examples": 2})
    write_json(folder / "env.json", {"versions": {"torch": "2.13"}, "host": "a", "command": ["x"]})
    write_json(folder / "data.json", {"store": "s", "fingerprint": "f", "lengths": {"train": [0, 0, 0, 1, 3]}})
    state = "done" if finished else "running"
    write_json(folder / "status.json", status(state, step=20 if finished else 7))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log_lines(seed)))
    if finished:
        write_json(folder / "results.json", results(seed, model))
        write_predictions(folder, labels)
    return folder


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def status(state: str, step: int) -> dict[str, Any]:
    known = {"state": state, "exit": 0 if state == "done" else None, "reason": "", "phase": "train"}
    return known | {"step": step, "attempt": 1, "time": 1000.0}


def log_lines(seed: int) -> list[dict[str, Any]]:
    """Return ten steps and two evaluations of two epochs."""
    lines: list[dict[str, Any]] = []
    for step in range(2, 21, 2):
        known = {"step": step, "epoch": step / 10, "time": 900.0 + step, "attempt": 1}
        speed = {"real_tokens_per_s": 100.0 * step, "memory_bytes": 2.0**30, "rank_imbalance": 0.0}
        lines.append(known | {"loss": 1.0 / step + seed / 100} | speed)
        if step % 10 == 0:
            lines.append(
                known | {"split": "validation", "loss": 0.5, "accuracy": step / 40 + seed / 100, "runtime": 1.0}
            )
    return lines


def results(seed: int, model: str) -> dict[str, Any]:
    timing = {"prepare_s": 1.0, "startup_s": 2.0, "train_s": 30.0, "eval_s": 4.0, "total_s": 40.0}
    speed = {"real_tokens_per_s": 1500.0, "padding_fraction": 0.02}
    metrics = {"validation": {"accuracy": 0.5 + seed / 100, "loss": 0.5, "examples": 4}}
    known = {"task": "mood", "seed": seed, "model": model, "metrics": metrics, "steps": 20, "epochs": 2.0}
    return known | {"throughput": speed, "timing": timing, "attempt": 1}


def write_predictions(folder: Path, labels: list[str]) -> None:
    """Predict the first class for every example, with a probability of 0.9."""
    rest = 0.1 / (len(labels) - 1)
    scores = "\t".join([f"{0.9:.6g}", *(f"{rest:.6g}" for _ in labels[1:])])
    rows = [f"{number}\t{labels[0]}\t{labels[number % len(labels)]}\t{scores}" for number in range(len(TEXTS))]
    header = "\t".join(["index", "prediction", "label", *(f"score_{name}" for name in labels)])
    (folder / "predictions" / "validation.tsv").write_text("\n".join([header, *rows]) + "\n")


MOODS = ("joy", "anger", "fear")
MOOD_ROWS = (("joy", "joy"), ("[]", "joy;fear"), ("fear;joy", "[]"), ("anger", "anger;fear"))
"""Labels and predictions of the four examples of `write_moods`."""


def write_moods(folder: Path, seed: int = 1) -> Path:
    """Write a run of a task with several labels an example, as `write_run`; returns the folder."""
    write_run(folder, seed, list(MOODS))
    config = (folder / "config.toml").read_text().replace("[data]", "multi_label = true\n[data]")
    (folder / "config.toml").write_text(config)
    data = folder.parent / "data-3"
    for split in ("train", "validation"):
        rows = [{"text": text, "label": label} for text, (label, _) in zip(TEXTS, MOOD_ROWS, strict=True)]
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = json.loads((folder / "results.json").read_text())
    results["metrics"]["validation"] = {"micro_f1": 0.5 + seed / 100, "loss": 0.5, "examples": 4}
    write_json(folder / "results.json", results)
    lines = ["\t".join(["index", "prediction", "label", *(f"score_{name}" for name in MOODS)])]
    for number, (label, prediction) in enumerate(MOOD_ROWS):
        scores = [f"{0.8 if name in prediction.split(';') else 0.1 + number / 100:.6g}" for name in MOODS]
        lines.append("\t".join([str(number), prediction, label, *scores]))
    (folder / "predictions" / "validation.tsv").write_text("\n".join(lines) + "\n")
    return folder
