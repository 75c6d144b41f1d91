"""Tests the comparison of an export with the stock model, and each reason to refuse one."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ftsys.errors import ConfigError
from ftsys.export.parity import Parity, check_drift, compare
from ftsys.export.rows import BATCH_ROWS, SplitRows
from ftsys.export.targets import Inputs, Run
from ftsys.tasks import GLUE, Task

COUNT = 70
UNDEFINED = float("nan")
KINDS = ("accuracy", "mse")


class Split(SimpleNamespace):
    """Rows of 1 to 9 tokens whose first token decides the logits."""

    def __init__(self, labels: np.ndarray = np.arange(COUNT) % 2) -> None:  # noqa: B008
        super().__init__(labels=labels, lengths=np.arange(COUNT) % 9 + 1)

    def __getitem__(self, row: int) -> dict[str, Any]:
        length = int(self.lengths[row])
        return {"input_ids": [row + 5] * length, "attention_mask": [1] * length, "labels": row % 2}


ROWS = SplitRows(Split(), COUNT, pad_id=3)


def model(change: float = 0.0, at: int = 0, length: int = 0) -> Run:
    """Logits of the first token; those of row `at`, or of batches of `length` tokens, are changed."""

    def run(inputs: Inputs) -> np.ndarray:
        rows = inputs["input_ids"][:, 0] - 5
        logits = np.stack([np.zeros(len(rows)), (rows % 2) * 2.0 - 1], axis=1).astype(np.float32)
        hit = (rows == at) & ((not length) | (inputs["input_ids"].shape[1] == length))
        logits[hit, 1] += change
        return logits

    return run


def test_batches_cover_all_rows_in_order_and_are_padded_with_the_tokenizers_token() -> None:
    batches = list(ROWS.batches())
    assert [len(batch["input_ids"]) for batch in batches] == [BATCH_ROWS, BATCH_ROWS, COUNT - 2 * BATCH_ROWS]
    first = batches[0]
    assert first["input_ids"].shape == first["attention_mask"].shape == (BATCH_ROWS, 9)
    assert first["input_ids"][1].tolist() == [6, 6, 3, 3, 3, 3, 3, 3, 3]
    assert first["attention_mask"][1].tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 0]
    assert "token_type_ids" not in first


def test_other_shapes_are_one_row_one_token_and_the_longest() -> None:
    assert [batch["input_ids"].shape for batch in ROWS.other_shapes()] == [(1, 1), (1, 1), (2, 9)]


def test_equal_models_have_no_difference() -> None:
    found = compare(GLUE["mrpc"], ROWS, model(), model())
    assert (found.rows, found.largest, found.scale, found.changed) == (COUNT, 0.0, 1.0, 0)
    assert found.before == found.after == {"accuracy": 1.0, "f1": 1.0}


def test_one_row_that_is_predicted_otherwise_is_counted() -> None:
    found = compare(GLUE["mrpc"], ROWS, model(), model(change=2.0, at=4))
    assert (found.largest, found.drift, found.changed) == (2.0, 2.0, 1)
    assert found.after["accuracy"] == pytest.approx(1 - 1 / COUNT)


def test_a_difference_in_another_shape_alone_is_found() -> None:
    found = compare(GLUE["mrpc"], ROWS, model(), model(change=0.25, length=1))
    assert (found.largest, found.changed) == (0.25, 0)


def test_a_row_with_another_set_of_labels_is_counted() -> None:
    task = Task("mood", ("text",), ("joy", "anger"), ("macro_f1",), multi_label=True)
    rows = SplitRows(Split(labels=np.eye(2, dtype=np.int64)[np.arange(COUNT) % 2]), COUNT, pad_id=3)
    found = compare(task, rows, model(), model(change=0.5, at=4))
    assert (found.largest, found.changed) == (0.5, 0), "-1 and -0.5 are the same decision"
    assert compare(task, rows, model(), model(change=1.5, at=4)).changed == 1


def parity(largest: float = 0.0, after: float = 0.8, before: float = 0.8) -> Parity:
    return Parity(COUNT, largest, 2.0, 0, dict.fromkeys(KINDS, before), dict.fromkeys(KINDS, after))


@pytest.mark.parametrize(
    ("found", "metric", "reason"),
    [
        (parity(0.02), "accuracy", "1.00% of the largest"),
        (parity(float("nan")), "accuracy", "nan"),
        (parity(after=0.7), "accuracy", "accuracy of 70 rows goes from 0.8000 to 0.7000"),
        (parity(after=0.9), "mse", "mse of 70 rows"),
        (parity(after=UNDEFINED), "accuracy", "goes from 0.8000 to nan"),
        (parity(after=UNDEFINED), "mse", "goes from 0.8000 to nan"),
    ],
)
def test_drift_is_refused_with_its_size(found: Parity, metric: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        check_drift("onnx", found, 1e-3, metric)


@pytest.mark.parametrize(
    ("found", "metric"),
    [
        (parity(0.001), "accuracy"),
        (parity(after=0.9), "accuracy"),
        (parity(after=0.7), "mse"),
        (parity(after=UNDEFINED, before=UNDEFINED), "mse"),
        (parity(before=UNDEFINED), "accuracy"),
    ],
)
def test_small_drift_and_a_better_metric_are_accepted(found: Parity, metric: str) -> None:
    check_drift("onnx", found, 1e-3, metric)
