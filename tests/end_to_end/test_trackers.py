"""Tests that the trackers of report_to get the throughput fields of a run: their files are read back."""

import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.end_to_end.attempts import RUN_FILE, make_project
from tests.end_to_end.commands import environment, ftsys

FIELDS = ("real_tokens_per_s", "padding_fraction", "rank_imbalance", "memory_bytes")


def needs(package: str) -> pytest.MarkDecorator:
    """Skip a test without a package that the tests do not install."""
    reason = f"{package} is not installed: it is no dependency of the tests"
    return pytest.mark.skipif(find_spec(package) is None, reason=reason)


def _train(folder: Path, minilm: Path, tracker: str, **environment: str) -> None:
    """Train four steps that report to `tracker`."""
    text = RUN_FILE.replace("max_steps = 12", "max_steps = 4").replace("save_every = 2", 'save_every = "never"')
    make_project(folder, minilm, text + f'report_to = ["{tracker}"]\n')
    ended = ftsys("train", "run.toml", cwd=folder, **environment)
    assert ended.returncode == 0, ended.stderr[-3000:]


def test_tensorboard_has_the_fields_of_each_step(tmp_path: Path, minilm_folder: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _train(tmp_path, minilm_folder, "tensorboard")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    for name in FIELDS:
        assert [event.step for event in events.Scalars(f"train/{name}")] == [1, 2, 3, 4]
    assert all(event.value > 0 for event in events.Scalars("train/real_tokens_per_s"))
    assert all(0 <= event.value < 0.2 for event in events.Scalars("train/padding_fraction"))


@needs("mlflow")
def test_mlflow_has_the_fields_of_each_step(tmp_path: Path, minilm_folder: Path) -> None:
    import mlflow

    place = f"sqlite:///{tmp_path}/mlflow.db"
    _train(tmp_path, minilm_folder, "mlflow", MLFLOW_TRACKING_URI=place)
    client = mlflow.MlflowClient(place)
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    for name in FIELDS:
        assert [one.step for one in client.get_metric_history(run.info.run_id, name)] == [1, 2, 3, 4]


def _wandb_history(path: Path) -> Iterator[dict[str, object]]:
    """Read the logged values of an offline run: protobuf records in blocks of 32 KiB, as in a log of LevelDB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # the end of a block is filled up
            place += 32768 - place % 32768
        _, size, kind = struct.unpack_from("<IHB", data, place)
        parts += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record, parts = Record.FromString(parts), b""
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                yield {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


@needs("wandb")
def test_wandb_has_the_fields_of_each_step_without_a_network(tmp_path: Path, minilm_folder: Path) -> None:
    _train(tmp_path, minilm_folder, "wandb", WANDB_MODE="offline", WANDB_DIR=str(tmp_path))
    (path,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    lines = list(_wandb_history(path))
    for name in FIELDS:
        found = [line["train/global_step"] for line in lines if f"train/{name}" in line]
        assert found == [1, 2, 3, 4]


@needs("trackio")
def test_trackio_has_the_fields_of_each_step_without_a_network(tmp_path: Path, minilm_folder: Path) -> None:
    _train(tmp_path, minilm_folder, "trackio", TRACKIO_DIR=str(tmp_path / "trackio"))
    (path,) = (tmp_path / "trackio").glob("*.db")
    code = "import json, sys, trackio.sqlite_storage as s\nstore = s.SQLiteStorage\n"
    code += "print(json.dumps(store.get_logs(sys.argv[1], store.get_runs(sys.argv[1])[0])))"
    shown = subprocess.run(
        [sys.executable, "-c", code, path.stem],
        env=environment(TRACKIO_DIR=str(path.parent)),
        capture_output=True,
        text=True,
        check=True,
    )
    lines = json.loads(shown.stdout.splitlines()[-1])
    for name in FIELDS:
        assert [line["train/global_step"] for line in lines if f"train/{name}" in line] == [1, 2, 3, 4]
