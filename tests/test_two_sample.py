"""The classifier two-sample test on laws whose best accuracy is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression

from geonoise_jax.evaluation.two_sample import classifier_two_sample


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def test_equal_laws_are_told_apart_no_better_than_by_chance() -> None:
    pairs = [(draw(2 * seed, 100, 3), draw(2 * seed + 1, 140, 3)) for seed in range(100)]
    found = [classifier_two_sample(*pair, seed=seed) for seed, pair in enumerate(pairs)]
    assert sum(each.low <= 0.5 <= each.high for each in found) >= 90
    # No more often below a level than it says; the p-value takes few values.
    assert sum(each.p_value <= 0.05 for each in found) <= 11
    assert {each.num for each in found} == {100}


def test_two_gaussians_are_told_apart_as_well_as_they_can_be() -> None:
    x, y = draw(0, 4000, 5), draw(1, 4000, 5) + 0.5 / np.sqrt(5.0)
    best = float(norm.cdf(0.25))
    linear = classifier_two_sample(x, y, classifier=LogisticRegression())
    assert linear.low <= best <= linear.high
    nearest = classifier_two_sample(x, y)
    assert 0.5 < nearest.low < nearest.high < best + 0.03
    assert max(linear.p_value, nearest.p_value) < 1e-6


def test_far_laws_are_told_apart_surely_but_not_proven_so() -> None:
    found = classifier_two_sample(draw(2, 60, 4, 4, 1) + 9.0, draw(3, 60, 4, 4, 1))
    assert (found.value, found.high, found.num) == (1.0, 1.0, 60)
    assert 0.9 < found.low < 1.0
    assert found.p_value == pytest.approx(0.5**60)


def test_copies_of_the_data_are_not_held_against_samples() -> None:
    """Halves are drawn for each set: a point and its copy need not be on one side."""
    x = draw(4, 400, 2)
    found = classifier_two_sample(x, x[::-1])
    assert found.low <= 0.5 <= found.high
    assert classifier_two_sample(x, x[::-1]) == found != classifier_two_sample(x, x[::-1], seed=1)


def test_bad_input_is_named() -> None:
    x = draw(5, 10, 2)
    with pytest.raises(ValueError, match=r"x.shape\[0\] = 3: must be at least 4 points"):
        classifier_two_sample(x[:3], x)
    with pytest.raises(ValueError, match=r"y: 1 of 10 rows are not finite; must be none"):
        classifier_two_sample(x, np.where(np.arange(20).reshape(10, 2) == 5, np.nan, x))
    with pytest.raises(ValueError, match=r"x.shape\[1:\] = \(2,\): must equal y.shape\[1:\] = \(1,\)"):
        classifier_two_sample(x, x[:, :1])
