"""Class weights against scikit-learn's formula, and the labels for which there are none."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from ftsys.data.class_weights import class_weights
from ftsys.errors import DataError
from ftsys.tasks import GLUE, Task

THREE = Task("t", ("x",), ("a", "b", "c"), ("accuracy",))
SETS = Task("t", ("x",), ("a", "b", "c"), ("micro_f1",), multi_label=True)


def split_of(labels: Any) -> Any:
    parts = np.split(np.array(labels), [1])
    return SimpleNamespace(name="train", label_parts=lambda: iter(parts))


def test_balanced_is_scikit_learns_formula() -> None:
    labels = np.array([0] * 70 + [1] * 25 + [2] * 5)
    found = class_weights("balanced", THREE, split_of(labels))
    assert found == pytest.approx(compute_class_weight("balanced", classes=np.arange(3), y=labels), rel=1e-12)


def test_balanced_labels_are_the_formula_of_each_label() -> None:
    labels = np.random.default_rng(0).uniform(size=(50, 3)) < [0.5, 0.2, 0.9]
    found = class_weights("balanced", SETS, split_of(labels.astype(np.int8)))
    of_each = [
        compute_class_weight("balanced", classes=np.arange(2), y=labels[:, label].astype(int)) for label in range(3)
    ]
    assert found == pytest.approx([with_it / without for without, with_it in of_each], rel=1e-12)


def test_numbers_are_in_the_order_of_the_labels() -> None:
    split = split_of([0, 0, 0])
    assert class_weights("none", THREE, split) is None
    assert class_weights((1.0, 2.0, 3.5), THREE, split) == (1.0, 2.0, 3.5)
    assert class_weights({"c": 4, "a": 0.5}, SETS, split) == (0.5, 1.0, 4.0)


@pytest.mark.parametrize(
    ("task", "labels", "message"),
    [
        (THREE, [0, 0, 2], "no row of 'train' has the label 'b'"),
        (GLUE["mrpc"], [1, 1], "no row of 'train' has the label 'not_equivalent'"),
        (SETS, [[1, 0, 0], [0, 0, 0]], "no row of 'train' has the label 'b' or 'c'"),
        (SETS, [[1, 1, 0], [0, 1, 1]], "every row of 'train' has the label 'b'"),
    ],
)
def test_balanced_needs_rows_with_and_without_each_label(task: Task, labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=f'class_weights="balanced" needs .*{message}: write numbers instead'):
        class_weights("balanced", task, split_of(labels))
