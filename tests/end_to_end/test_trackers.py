"""Tests that the trackers of report_to get the throughput fields of a run: their files are read back."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.end_to_end.attempts import RUN_FILE, make_project
from tests.end_to_end.commands import ftsys

FIELDS = ("real_tokens_per_s", "padding_fraction", "rank_imbalance", "memory_bytes")


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


@pytest.mark.skipif(find_spec("mlflow") is None, reason="mlflow is not installed: it is no dependency of the tests")
def test_mlflow_has_the_fields_of_each_step(tmp_path: Path, minilm_folder: Path) -> None:
    import mlflow

    place = f"sqlite:///{tmp_path}/mlflow.db"
    _train(tmp_path, minilm_folder, "mlflow", MLFLOW_TRACKING_URI=place)
    client = mlflow.MlflowClient(place)
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    for name in FIELDS:
        assert [one.step for one in client.get_metric_history(run.info.run_id, name)] == [1, 2, 3, 4]
