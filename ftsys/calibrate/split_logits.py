"""Predicts one split of a finished run with its trained model, in this process alone."""

import tempfile

import numpy as np

from ftsys.data.label_values import check_labels
from ftsys.finished.run import FinishedRun
from ftsys.finished.store import open_store
from ftsys.report.log_filters import quiet_libraries
from ftsys.report.progress import SplitProgress


def split_logits(finished: FinishedRun, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return logits (N, C) and labels (N,) or (N, C) of a split. Raises the errors of `open_store`."""
    quiet_libraries()
    store = open_store(finished, name)
    from ftsys.train.setup import load_trained, prediction_trainer
    from ftsys.train.trainer.hooks import RunHooks

    split = store.splits[name]
    check_labels(split, finished.task)
    with tempfile.TemporaryDirectory() as scratch, SplitProgress("predict") as progress:
        hooks = RunHooks(on_evaluation_progress=lambda split_name, done, total: progress(done, total, split_name))
        run = finished.run
        model = load_trained(finished.model, finished.task, run.model.trust_remote_code)
        trainer = prediction_trainer(run, model, store, scratch, hooks)
        trainer.predict(split)
        found = trainer.parts.evaluator.predictions[name]
        trainer.end()
    return found.logits, split.labels
