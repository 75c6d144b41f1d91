"""Tests when a mean over seeds counts as reached."""

import pytest

from ftsys.bench.quality.curves import Evaluation, final_scores, first_reached, mean_scores, standard_error


def curve(*scores: float, pace: float = 1.0) -> list[Evaluation]:
    return [Evaluation(10 * number, pace * number, score) for number, score in enumerate(scores, 1)]


def test_the_mean_counts_and_not_the_first_seed_that_touches() -> None:
    curves = [curve(0.9, 0.7, 0.8), curve(0.5, 0.7, 0.8)]
    assert mean_scores(curves) == pytest.approx([0.7, 0.7, 0.8])
    assert first_reached(curves, 0.75) == 2
    assert first_reached(curves, 0.7) == 0
    assert first_reached(curves, 0.9) is None


def test_seeds_with_other_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="same steps"):
        mean_scores([curve(0.5, 0.6), curve(0.5)])


def test_last_scores_and_their_error() -> None:
    assert final_scores([curve(0.1, 0.6), curve(0.9, 0.8)]) == [0.6, 0.8]
    assert standard_error([0.6, 0.8]) == pytest.approx(0.1)
    assert standard_error([0.6]) == 0
