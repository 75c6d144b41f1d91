"""Lists every reader of a file with a real file for it: the targets of the fuzzing tests."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from safetensors.numpy import save

from ftsys.config.load import load_run
from ftsys.data.bundle import _SEALED as BUNDLE_FILE
from ftsys.data.bundle import BUNDLE_NAME, Bundle
from ftsys.data.glue_submission import check_submission
from ftsys.data.sources.source import open_source
from ftsys.data.store.index import _SEALED as INDEX_FILE
from ftsys.data.store.index import INDEX_NAME, StoreIndex
from ftsys.data.tokenize.plain_bert import is_plain_bert
from ftsys.files.integrity import SealedJson
from ftsys.html_report.facts import read_run_facts
from ftsys.html_report.page import make_page
from ftsys.html_report.predictions import read_split_predictions
from ftsys.model_files.calibration import CALIBRATION, read_calibration
from ftsys.model_files.card import read_card
from ftsys.model_files.config import current_snapshot, model_config
from ftsys.model_files.folder import check_model_folder
from ftsys.report.runs import find_runs, rows_of_run
from ftsys.run_folder.attempts import read_owner
from ftsys.run_folder.claim import claim_run_folder
from ftsys.run_folder.layout import ATTEMPTS
from ftsys.run_folder.metrics_log import read_metrics
from ftsys.run_folder.predictions import read_labelled, read_scores
from ftsys.run_folder.report_facts import read_data_facts, read_rank_facts
from ftsys.run_folder.results import read_results
from ftsys.run_folder.status import exit_of_this_start, read_status, read_status_after_crash
from ftsys.score.parts import Parts
from ftsys.score.readers.inputs import input_file
from ftsys.score.readers.rows import Wanted
from ftsys.score.reranker import activation_named
from ftsys.table.cells import cells_of
from ftsys.table.spec import read_spec
from ftsys.table.state import FAILURES, failures_of
from ftsys.tasks import Task
from ftsys.train.checkpoint.catalog import Checkpoint
from ftsys.train.checkpoint.manifest import _SEALED as MANIFEST_FILE
from ftsys.train.checkpoint.manifest import MANIFEST
from ftsys.train.trainable.adapter_files import ADAPTER_CONFIG, read_adapter_config
from ftsys.watch.snapshot import take_snapshot
from ftsys.watch.view import cells
from launcher.planner.deepspeed_config import read_user_json
from launcher.planner.plan import Plan
from tests.fuzz.checkpoints import CHECKPOINT, STATE, TENSORS, read_state
from tests.fuzz.samples import ROWS, delimited, parquet, submission
from tests.fuzz.saved_datasets import files_of_datasets

ADAPTER = {"peft_type": "LORA", "base_model_name_or_path": "model", "r": 8, "lora_alpha": 16, "use_dora": False}


@dataclass(frozen=True)
class Reader:
    """A reader of the file `name` in a folder.

    `content` is a real file. `beside` are other files that it needs. With `sealed`, the edits are made to the JSON and
    the checksum is made right again: a stranger can do that, damage cannot.
    """

    name: str
    content: bytes
    read: Callable[[Path], object]
    beside: Mapping[str, bytes] = field(default_factory=dict)
    sealed: SealedJson | None = None


def json_bytes(value: object) -> bytes:
    return json.dumps(value, indent=1).encode()


def make_page_of(folder: Path) -> None:
    """Make the sections of a report of one run, without drawing them."""
    make_page([read_run_facts(folder, "run")], "title")


RUN = b"""output_dir = "out"
[task]
name = "mood"
columns = ["text"]
labels = ["down", "up"]
[data]
source = { train = "train.csv", validation = "dev.csv" }
max_length = 64
[train]
epochs = 2.0
learning_rate = 2e-5
[batch]
global_size = 16
[trainer]
weight_decay = 0.01
"""
STATUS = {"state": "done", "exit": 0, "reason": "", "phase": "done", "step": 7, "attempt": 1, "time": 1.5}
RESULTS = {"task": "mrpc", "model": "m", "metrics": {"validation": {"f1": 0.5, "examples": 8}}, "attempt": 1}
FIGURES = {
    "throughput": {"real_tokens_per_s": 5.0, "padding_fraction": 0.5},
    "timing": {"train_s": 1.0, "total_s": 2.0},
    "steps": 7,
    "seed": 1,
    "store": "a",
}
OWNER = {"identity": {"task": "mrpc"}, "first_attempt": 1, "host": "a", "pid": 7, "command": ["x"], "time": 1.0}
DATA = {"store": "a", "fingerprint": "f", "lengths": {"train": [0, 1, 2]}}
RANKS = [{"rank": 0, "host": "a", "tokens": 5, "computed_tokens": 6, "steps": [[1, 5, 6], [2, 5, 6]]}]
MOOD = Task("mood", ("text",), ("down", "up"), ("accuracy",))
LINE = {"step": 1, "epoch": 0.5, "time": 1.0, "attempt": 1, "loss": 0.25, "split": "validation"}
TOKENIZER = {"fingerprint": "f", "pad_id": 0, "vocab_size": 9, "emits_token_types": True, "max_length": 8}
SPLIT = {"file": "train.arrow", "rows": 1, "labelled": True, "tokens": 3, "lengths": [0, 0, 0, 1], "size": 48}
BATCHES = {"offset": [0], "rows": [1], "list_offsets": [8], "values": [16], "first_length": [24], "label": [32]}
INDEX = {
    "fingerprint": "f" * 64,
    "source": "s" * 64,
    "tokenizer": TOKENIZER,
    "token_type": "uint16",
    "label_type": "int64",
    "rows_per_batch": 4,
    "splits": [{**SPLIT, "sha256": "0", "batches": BATCHES}],
    "format": 1,
}
FILES = {name: {"bytes": 1, "sha256": "0"} for name in ("run.toml", "model/config.json")}
BUNDLE = {"asked": {"model.name": "m"}, "store": "f" * 64, "files": FILES, "version": "1", "format": 1}
CONFIG = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 90,
    "hidden_dropout_prob": 0.1,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "id2label": {"0": "a", "1": "b"},
}
WEIGHTS = {
    "metadata": {},
    "weight_map": {"w": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"},
}
ACTIVATION = {"activation_fn": "torch.nn.modules.linear.Identity", "__version__": {"torch": "2"}}
CARD_TEXT = b"---\nlicense: mit\nftsys:\n  columns: [a, b]\n  max_length: 64\n---\n# A model\n"
DEEPSPEED = {"zero_optimization": {"stage": "auto"}, "train_batch_size": "auto", "bf16": {"enabled": True}}
SCORES = b"index\tprediction\tlabel\tscore_down\tscore_up\n0\tup\tdown\t0.25\t0.75\n1\tdown\t\t1\t3.2e-09\n"
CALIBRATED = {"format": 1, "temperature": 1.25, "thresholds": {"up": 0.5}, "metric": "f1"}
SETS = Task(name="moods", columns=("text",), labels=("down", "up"), metrics=("micro_f1",), multi_label=True)
LABEL_SETS = b'text,label\na,down;up\nb,01\nc,"[\'up\', ""down""]"\nd,"[1.0, 0]"\ne,[]\nf,1\ng,\n'
TASK = Task(name="mood", columns=("text",), labels=("down", "up"), metrics=("accuracy",), train_split="train")


MOODS = replace(TASK, labels=("down", "up;"), multi_label=True)
LABELLED_SETS = b'index\tprediction\tlabel\tscore_down\tscore_up;\n0\t[]\t"[""up;""]"\t0.4\t0.1\n'
PREDICTIONS = b"index\tprediction\tlabel\tscore_down\tscore_up\n0\tup\tdown\t0.4\t0.6\n1\tdown\tdown\t0.6\t0.4\n"
TABLE = b"""output_dir = "t"
[data]
source = "glue"
[table]
models = ["bundled", "a/b"]
tasks = ["cola", "mnli", "rte"]
seeds = "1..2"
transfer = "mnli"
by_task.rte.data.first_rows = {train = 40}
by_task.rte.train.epochs = 2
"""


def read_rows(path: Path, task: Task = TASK) -> int:
    """Read all rows of a data file as `ftsys prepare` does."""

    source = open_source(SimpleNamespace(source={"train": str(path)}), task)
    return sum(len(batch.first) for batch in source.batches("train"))


def begun_output(path: Path) -> str | None:
    return Parts(path.parent.with_suffix("")).begin({"model": "m"}, overwrite=False)


def score_rows(path: Path) -> int:
    """Read all rows of a data file as `ftsys predict` does, with broken ones among them."""
    reader = input_file(str(path), None, None, "auto").open()
    wanted = Wanted(("text",), ("label",))
    wanted.check(str(path), reader.columns)
    return sum(1 for _ in reader.read(wanted))


@cache
def readers() -> Mapping[str, Reader]:
    lines = b"\n".join(json.dumps(line).encode() for line in (LINE, {**LINE, "step": 2})) + b"\n"
    rows = b"\n".join(json.dumps({"text": text, "label": label}).encode() for text, label in ROWS)
    config, empty = {"config.json": json_bytes(CONFIG)}, {"tokenizer_config.json": b"{}"}
    tokenizer = json_bytes({"model": {"type": "WordPiece", "vocab": {"a": 0}}, "added_tokens": [], "normalizer": None})
    return {
        "run file": Reader("run.toml", RUN, load_run),
        "status": Reader("status.json", json_bytes(STATUS), lambda path: read_status(path.parent)),
        "status after a crash": Reader(
            "status.json", json_bytes(STATUS), lambda path: read_status_after_crash(path.parent)
        ),
        "results": Reader("results.json", json_bytes(RESULTS), lambda path: read_results(path.parent)),
        "owner": Reader(f"{ATTEMPTS}/000001.json", json_bytes(OWNER), lambda path: read_owner(path.parents[1])),
        "owner of a folder": Reader(
            f"{ATTEMPTS}/000001.json",
            json_bytes(OWNER),
            lambda path: claim_run_folder(path.parents[1], {"task": "rte"}, overwrite=False, rank=1),
        ),
        "exit of a start": Reader(
            "status.json", json_bytes(STATUS), lambda path: exit_of_this_start(path.parent, before=0)
        ),
        "table of runs": Reader("results.json", json_bytes(RESULTS | FIGURES), lambda path: find_runs([path.parent])),
        "table of a run": Reader("metrics.jsonl", lines, lambda path: rows_of_run(path.parent)),
        "data facts": Reader("data.json", json_bytes(DATA), lambda path: read_data_facts(path.parent)),
        "rank facts": Reader("ranks.json", json_bytes(RANKS), lambda path: read_rank_facts(path.parent)),
        "predictions for a report": Reader(
            "predictions/validation.tsv",
            b"index\tprediction\tlabel\tscore_down\tscore_up\n0\tup\tdown\t0.25\t0.75\n1\tup\t\t0.25\t0.75\n",
            lambda path: read_split_predictions(path.parents[1], "validation", MOOD),
        ),
        "report of a run": Reader(
            "results.json", json_bytes(RESULTS | FIGURES), lambda path: make_page_of(path.parent)
        ),
        "report of a log": Reader("metrics.jsonl", lines, lambda path: make_page_of(path.parent)),
        "snapshot": Reader("metrics.jsonl", lines, lambda path: cells(take_snapshot(path.parent, "run"))),
        "metrics log": Reader("metrics.jsonl", lines, read_metrics),
        "store's index": Reader(INDEX_NAME, INDEX_FILE.seal(INDEX), lambda path: StoreIndex.read(path.parent)),
        "sealed index": Reader(
            INDEX_NAME, json_bytes(INDEX), lambda path: StoreIndex.read(path.parent), sealed=INDEX_FILE
        ),
        "bundle": Reader(BUNDLE_NAME, BUNDLE_FILE.seal(BUNDLE), lambda path: Bundle.read(path.parent)),
        "sealed bundle": Reader(
            BUNDLE_NAME, json_bytes(BUNDLE), lambda path: Bundle.open(path.parent), sealed=BUNDLE_FILE
        ),
        "manifest": Reader(MANIFEST, MANIFEST_FILE.seal(CHECKPOINT), lambda path: Checkpoint.open(path.parent)),
        "sealed manifest": Reader(
            MANIFEST, json_bytes(CHECKPOINT), lambda path: Checkpoint.open(path.parent), sealed=MANIFEST_FILE
        ),
        "checkpoint's state": Reader("state.json", json_bytes(STATE), read_state, TENSORS),
        "checkpoint's weights": Reader(
            "weights.safetensors",
            TENSORS["weights.safetensors"],
            read_state,
            {**TENSORS, "state.json": json_bytes(STATE)},
        ),
        "revision in the Hub's cache": Reader(
            "refs/main", b"0123456789abcdef" * 2, lambda path: current_snapshot(path.parents[1])
        ),
        "predictions": Reader("validation.tsv", SCORES, lambda path: read_scores(path, TASK)),
        "config.json": Reader("config.json", json_bytes(CONFIG), lambda path: model_config(path.parent)),
        "adapter": Reader(ADAPTER_CONFIG, json_bytes(ADAPTER), lambda path: read_adapter_config(path.parent)),
        "calibration": Reader(CALIBRATION, json_bytes(CALIBRATED), lambda path: read_calibration(path.parent)),
        "index of weights": Reader(
            "model.safetensors.index.json",
            json_bytes(WEIGHTS),
            lambda path: check_model_folder(str(path.parent)),
            beside=config,
        ),
        "weights": Reader(
            "model.safetensors",
            save({"w": np.ones(3, np.float32)}),
            lambda path: check_model_folder(str(path.parent)),
            beside=config,
        ),
        "tokenizer.json": Reader("tokenizer.json", tokenizer, lambda path: is_plain_bert(path.parent), config | empty),
        "DeepSpeed file": Reader("ds.json", json_bytes(DEEPSPEED), read_user_json),
        "plan": Reader("plan.json", json_bytes({"format": 1}), lambda path: Plan.from_json(path.read_text("latin-1"))),
        "CSV": Reader("train.csv", delimited(","), read_rows),
        "CSV of several labels": Reader("train.csv", LABEL_SETS, lambda path: read_rows(path, SETS)),
        "TSV": Reader("train.tsv", delimited("\t"), read_rows),
        "JSON lines": Reader("train.jsonl", rows, read_rows),
        "Parquet": Reader("train.parquet", parquet(), read_rows),
        "labelled predictions": Reader("validation.tsv", PREDICTIONS, lambda path: read_labelled(path, TASK)),
        "predictions of several labels": Reader("p.tsv", LABELLED_SETS, lambda path: read_labelled(path, MOODS)),
        "table": Reader("run.toml", TABLE, lambda path: cells_of(read_spec(str(path), ()))),
        "failures of a cell": Reader(FAILURES, json_bytes({"1": -9, "2": 1}), lambda path: failures_of(path.parent)),
        "submission": Reader("submission.zip", submission(), check_submission),
        "scored CSV": Reader("x.csv", delimited(","), score_rows),
        "scored TSV": Reader("x.tsv", delimited("\t"), score_rows),
        "scored JSON lines": Reader("x.jsonl", rows, score_rows),
        "scored JSON array": Reader("x.json", b"[" + rows.replace(b"\n", b",") + b"]", score_rows),
        "scored Parquet": Reader("x.parquet", parquet(), score_rows),
        **{name: Reader(*parts) for name, parts in files_of_datasets().items()},
        "model card": Reader("README.md", CARD_TEXT, lambda path: read_card(path.parent)),
        "command of a scoring": Reader("o.csv.parts/command.json", json_bytes(OWNER), begun_output),
        "sentence-transformers": Reader(
            "config_sentence_transformers.json", json_bytes(ACTIVATION), lambda path: activation_named(path.parent, {})
        ),
    }
