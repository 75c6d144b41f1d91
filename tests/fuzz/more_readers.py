"""Lists the readers of what launchers, nodes and stores leave, and puts all readers together."""

import json
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from ftsys.config import RunConfig, build_run, read_run_file
from ftsys.data.store.partial import SUFFIX, saved_rows
from ftsys.data.store.reader import Store
from ftsys.data.tokenize.plain_bert import is_plain_bert
from ftsys.data.tokenize.tokenizer import load_tokenizer
from ftsys.files.lease import seems_held
from ftsys.files.untrusted import parse_toml
from ftsys.probe.inputs import count_parameters
from ftsys.run_folder.layout import CALIBRATION_RESULTS, DATA, PLAN, RANKS, TRAINER_STATE
from ftsys.run_folder.layout import ENVIRONMENT as ENVIRONMENT_FILE
from ftsys.run_glue.flags import _arguments_from_json
from ftsys.run_glue.results import results_of_run
from ftsys.sweep.study import JOURNAL
from ftsys.table.pool.progress import _total_steps, last_line
from ftsys.train.dropin_deepspeed import _read as read_deepspeed
from ftsys.train.perf.product_rates import _read as read_rates
from launcher.backends.machines import read_hostfile
from launcher.doctor.probes import _outputs
from launcher.doctor.run_on_nodes import CommandResult
from launcher.protocol import ReportReader, encode_report
from launcher.slurm.job import JOB_FILE, job_number
from tests.distributed.tiny_run import make_store
from tests.fuzz.checkpoints import STATE as CHECKPOINTED
from tests.fuzz.checkpoints import TENSORS, TRAINER, read_trainer_state
from tests.fuzz.readers import (
    CONFIG,
    DEEPSPEED,
    FIGURES,
    LINE,
    OWNER,
    RESULTS,
    RUN,
    Reader,
    json_bytes,
    make_page_of,
    read_rows,
    readers,
)
from tests.fuzz.readers import DATA as DATA_FACTS
from tests.fuzz.readers import RANKS as RANK_FACTS
from tests.fuzz.samples import parquet_of_datasets, word_piece
from tests.fuzz.sweeps import RUN_FILE, journal, read_journal

HOSTS = b"# our nodes\nnode1 slots=8\nnode2 slots=8   # the new one\n\nada@node3:22 slots=8\n"
FLAGS = {"model_name_or_path": "m", "task_name": "mrpc", "do_train": True, "fsdp_config": {}, "learning_rate": 5e-5}
STATE = {"log_history": [{"loss": 0.5, "step": 1}, {"train_runtime": 2.0, "train_loss": 0.5, "epoch": 1.0}]}
TOKENIZER: dict[str, object] = {
    "model": {"type": "WordPiece", "vocab": {"a": 0}},
    "added_tokens": [],
    "normalizer": None,
}
ENVIRONMENT = {"host": "a", "cpu": {"name": "x", "cores": 8}, "versions": {"torch": "2.13.0"}, "command": ["ftsys"]}
REPORTED_PLAN = {"format": 1, "world_size": 2, "total_steps": 8, "train_rows": 9, "rank_examples": 8, "reasons": ["x"]}
FIT = {"log_loss": 0.5, "expected_calibration_error": 0.1, "metric": 0.8}
CALIBRATION = {"split": "validation", "rows": 9, "before": FIT, "after_out_of_fold": FIT, "temperature": 1.5}
PROBE = {"probe": 0, "group": "host", "facts": {"python": "3.11", "cores": 8}}
REPORTS = (
    b"text" + encode_report("refused", node=1, host="b", reason="no") + encode_report("heartbeat", node=0, host="a")
)


RECIPE = b"[batch]\nglobal_size = 8\n[train]\nepochs = 2\n[by_task.mood.trainer]\nwarmup_steps = 0.1\n"


@cache
def store_files() -> tuple[str, Mapping[str, bytes]]:
    """Return the name of the training split's file of a small store, and the content of all its files."""
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder))
        files = {path.name: path.read_bytes() for path in store.iterdir()}
    return next(name for name in files if name.startswith("train")), files


def read_recipe(path: Path) -> RunConfig:
    """Read a recipe as every command does, below a run file that names it."""
    return build_run(parse_toml(RUN.decode()) | {"recipe": str(path)})


def read_above_recipe(path: Path) -> RunConfig:
    """Read a run file above a recipe."""
    return build_run(read_run_file(path) | {"recipe": str(path.with_name("recipe.toml"))})


def read_store(path: Path) -> None:
    """Read everything of a store whose bytes were not compared with its index, as of a large one."""
    for split in Store.open(path.parent, verify=False).splits.values():
        split.gather(np.arange(len(split)))
        assert len(split.lengths) == len(split.labels) == len(split)


def report(path: Path) -> None:
    make_page_of(path.parent)


def read_reports(path: Path) -> None:
    """Read what a node sends, in pieces of 7 bytes."""
    reader, content = ReportReader(), path.read_bytes()
    for first in range(0, len(content), 7):
        list(reader.feed(content[first : first + 7]))


def read_probe(path: Path) -> None:
    _outputs([0], CommandResult(path.read_text("utf-8", "replace"), "", 0))


@cache
def all_readers() -> Mapping[str, Reader]:
    """Return the readers of this file and of `readers`, by name."""
    split, files = store_files()
    plan, state = json_bytes({"format": 1, "train_rows": 9, "total_steps": 8}), json_bytes(STATE)
    tokenizer = {"config.json": json_bytes(CONFIG), "tokenizer.json": json_bytes(TOKENIZER)}
    lines = b"\n".join(json.dumps(line).encode() for line in (LINE, {**LINE, "step": 2})) + b"\n"
    named = {"tokenizer_class": "BertTokenizer", "model_max_length": 64, "pad_token": "[PAD]", "unk_token": "[UNK]"}
    settings = {"config.json": json_bytes(CONFIG), "tokenizer_config.json": json_bytes(named)}
    results = {"results.json": json_bytes(RESULTS | FIGURES)}
    here = {
        "recipe": Reader("recipe.toml", RECIPE, read_recipe),
        "run file above a recipe": Reader("run.toml", RUN, read_above_recipe, {"recipe.toml": RECIPE}),
        "hostfile": Reader("hosts", HOSTS, lambda path: read_hostfile(str(path))),
        "job number": Reader(JOB_FILE, b"1234_5\n", lambda path: job_number(path.parents[1])),
        "lease": Reader("study.lease-1", json_bytes(OWNER), lambda path: seems_held(path.parent / "study")),
        "rows that were saved": Reader(
            f"train.arrow{SUFFIX}",
            json_bytes({"rows": 5, "size": 9, "sha256": "0" * 64}),
            lambda path: saved_rows(path.parent),
        ),
        "a store's rows": Reader(split, files[split], read_store, beside=files),
        "flags of run_glue": Reader("flags.json", json_bytes(FLAGS), _arguments_from_json),
        "checkpoint's state of the Trainer": Reader(
            TRAINER_STATE, json_bytes(TRAINER), read_trainer_state, {**TENSORS, "state.json": json_bytes(CHECKPOINTED)}
        ),
        "results for run_glue": Reader(
            TRAINER_STATE,
            state,
            lambda path: results_of_run(path.parent),
            beside={PLAN: plan, "results.json": json_bytes(RESULTS)},
        ),
        "measured rates": Reader("rates.json", json_bytes({"fp32": 2e11, "bf16": 4e11}), read_rates),
        "reports of a node": Reader("reports", REPORTS, read_reports),
        "answers of a probe": Reader("answers", json.dumps(PROBE).encode() + b"\n", read_probe),
        "tokenizer_config.json": Reader(
            "tokenizer_config.json", b'{"do_lower_case": true}', lambda path: is_plain_bert(path.parent), tokenizer
        ),
        "tokenizer of a model": Reader(
            "tokenizer.json", word_piece(), lambda path: load_tokenizer(path.parent, 16), settings
        ),
        "settings of a tokenizer": Reader(
            "tokenizer_config.json",
            settings["tokenizer_config.json"],
            lambda path: load_tokenizer(path.parent, 16),
            {**settings, "tokenizer.json": word_piece()},
        ),
        "last line of a cell": Reader("metrics.jsonl", lines, lambda path: last_line(path.parent)),
        "steps of a cell": Reader(PLAN, plan, lambda path: _total_steps(path.parent)),
        "parameters of a model": Reader(
            "model.safetensors", save({"w": np.ones((2, 3), np.float32)}), lambda path: count_parameters(path.parent)
        ),
        "Parquet of datasets": Reader("train.parquet", parquet_of_datasets(), read_rows),
        "environment in a report": Reader(ENVIRONMENT_FILE, json_bytes(ENVIRONMENT), report, beside=results),
        "plan in a report": Reader(PLAN, json_bytes(REPORTED_PLAN), report, beside=results),
        "calibration in a report": Reader(CALIBRATION_RESULTS, json_bytes(CALIBRATION), report, beside=results),
        "journal of a sweep": Reader(JOURNAL, journal(), read_journal, beside={"run.toml": RUN_FILE}),
        "data facts in a report": Reader(DATA, json_bytes(DATA_FACTS), report, beside=results),
        "rank facts in a report": Reader(RANKS, json_bytes(RANK_FACTS), report, beside=results),
        "DeepSpeed file of a script": Reader("ds.json", json_bytes(DEEPSPEED), lambda path: read_deepspeed(str(path))),
    }
    assert not here.keys() & readers().keys()
    return {**readers(), **here}
