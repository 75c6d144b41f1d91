"""The same weights evaluated on 1, 2 and 3 ranks: every id once, in data set order, the same metrics."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.distributed.tiny_run import ROWS, make_store, make_trainer
from tests.distributed.worlds import World

RANKS = (1, 2, 3)


def evaluate_both(store: Path, scratch: Path, precision: str) -> dict[str, Any]:
    """Metrics of two evaluation sets at once, and the logits of the first, in packs of a few examples."""
    from ftsys.data.store.reader import Store

    trainer = make_trainer(store, scratch, precision=precision, micro_tokens=60)
    splits = Store.open(store).splits
    trainer.eval_dataset = {"validation": splits["validation"], "train": splits["train"]}
    metrics = {key: value for key, value in trainer.evaluate().items() if key.endswith(("loss", "accuracy"))}
    return {"metrics": metrics, "logits": trainer.parts.evaluator.predictions["validation"].logits}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_predictions_do_not_depend_on_the_ranks(world: Callable[[int], World], tmp_path: Path, precision: str) -> None:
    store = make_store(tmp_path / "stores")
    found = {ranks: world(ranks).run(evaluate_both, store, tmp_path, precision) for ranks in RANKS}
    expected = found[1][0]
    assert set(expected["metrics"]) == {
        f"eval_{split}_{name}" for split in ("validation", "train") for name in ("loss", "accuracy")
    }
    assert expected["logits"].shape == (ROWS["validation"], 2)
    for by_rank in found.values():
        for one in by_rank:
            # The packs are the same, so every rounding is: not merely close.
            np.testing.assert_array_equal(one["logits"], expected["logits"])
            assert one["metrics"] == expected["metrics"]


def evaluate_mrpc(glue: Path, model: Path, scratch: Path, precision: str) -> dict[str, Any]:
    """MRPC's validation split under the pre-trained encoder with a head of seed 1."""
    from ftsys.config import build_run, resolve_task
    from ftsys.data.prepare import ensure_store
    from ftsys.train.setup import load_model, metrics_of, prediction_trainer

    run = build_run(
        {
            "output_dir": str(scratch),
            "task": {"name": "mrpc"},
            "data": {"source": str(glue)},
            "model": {"name": str(model)},
            "engine": {"precision": precision},
        }
    )
    task = resolve_task(run)
    store = ensure_store(run, task)
    trainer = prediction_trainer(run, load_model(model, task, 1)[0], store, str(scratch))
    trainer.compute_metrics = metrics_of(task)
    found = trainer.predict(store.splits["validation"])
    return {"logits": found.predictions, "labels": found.label_ids, "metrics": found.metrics}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_mrpc_validation_is_the_same_on_any_ranks(
    world: Callable[[int], World], glue_folder: Path, minilm_folder: Path, tmp_path: Path, precision: str
) -> None:
    rows = 408  # does not divide by three ranks
    found = [
        world(ranks).run(evaluate_mrpc, glue_folder, minilm_folder, tmp_path, precision, timeout=300)[0]
        for ranks in RANKS
    ]
    for one in found:
        assert one["logits"].shape == (rows, 2)
        np.testing.assert_array_equal(one["labels"], found[0]["labels"])
        np.testing.assert_allclose(one["logits"], found[0]["logits"], atol=1e-6 if precision == "fp32" else 0)
        for name in ("test_accuracy", "test_f1", "test_loss"):
            assert one["metrics"][name] == pytest.approx(found[0]["metrics"][name], abs=1e-6)
