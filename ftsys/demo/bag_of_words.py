"""Computes the bag-of-words baseline of a task, with which a fine-tuned encoder is compared."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ftsys.data.sources.rows import TextBatch
from ftsys.errors import DataError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Inverse regularization strengths to try on the held-out part of the training split."""
_HELD_OUT = 5
"""Every fifth training row is held out to choose the strength."""


def bag_of_words_baseline(train: Iterable[TextBatch], validation: Iterable[TextBatch]) -> dict[str, float]:
    """Fit a logistic regression over word counts on `train`; return its accuracy (and 'f1' if binary) on `validation`.

    Features: the word counts of each sentence, the counts that both share and in which they differ, and the overlap of
    the pair. This is all that a bag of words contains; word order is not used. Raises DataError for rows without a
    label and for regression scores.
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.metrics import accuracy_score, f1_score
    from threadpoolctl import threadpool_limits

    first, second, labels = _columns(train, "training")
    val_first, val_second, val_labels = _columns(validation, "validation")
    counter = CountVectorizer(token_pattern=r"\w+|[^\w\s]").fit([*first, *second])
    features = _features(counter, first, second)
    # The vectors are many and short, so that threads only wait for each other: 43 s instead of 3 on a busy machine.
    with threadpool_limits(limits=1):
        predicted = _fit(features, labels).predict(_features(counter, val_first, val_second))
    scores = {"accuracy": float(accuracy_score(val_labels, predicted))}
    if set(labels) <= {0, 1}:
        scores["f1"] = float(f1_score(val_labels, predicted))
    return scores


def _columns(batches: Iterable[TextBatch], split: str) -> tuple[list[str], list[str], np.ndarray]:
    held = list(batches)
    first = [text for batch in held for text in batch.first]
    second = [text for batch in held for text in batch.second or ()]
    labels = np.concatenate([batch.labels for batch in held]) if held else np.empty(0, np.int64)
    if labels.dtype.kind != "i" or not labels.size or labels.min() < 0:
        raise DataError(f"the word-count baseline needs a class label for each {split} row; use it for classification.")
    return first, second, labels


def _features(counter: Any, first: Sequence[str], second: Sequence[str]) -> "csr_matrix":
    """Compute sparse float64 features (rows, features): four counts for each word, then three ratios of overlap."""
    from scipy.sparse import csr_matrix, hstack

    one = counter.transform(first).astype(np.float64)
    if not second:
        return one
    two = counter.transform(second).astype(np.float64)
    shared, apart = one.minimum(two), abs(one - two)
    sizes = [np.asarray(each.sum(axis=1)).ravel() for each in (one, two, shared)]
    ratios = np.stack([sizes[2] / np.maximum(total, 1) for total in (sizes[0], sizes[1], sizes[0] + sizes[1])], axis=1)
    return hstack([one, two, shared, apart, csr_matrix(ratios)], format="csr")


def _fit(features: "csr_matrix", labels: np.ndarray) -> Any:
    """Fit all rows with the strength that is best on the held-out rows."""
    held_out = np.arange(len(labels)) % _HELD_OUT == 0
    if len(set(labels[~held_out])) < 2:
        raise DataError(
            f"the word-count baseline needs two classes among its {len(labels)} training rows; give it more."
        )
    tried = {
        strength: _regression(strength)
        .fit(features[~held_out], labels[~held_out])
        .score(features[held_out], labels[held_out])
        for strength in _STRENGTHS
    }
    return _regression(max(tried, key=lambda strength: tried[strength])).fit(features, labels)


def _regression(strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, tol=1e-3, max_iter=300)
