"""The inception score of classifiers whose score is known."""

from __future__ import annotations

import numpy as np
import pytest

from geonoise_jax.evaluation.inception_score import inception_score


def logits(seed: int, num: int, classes: int = 7) -> np.ndarray:
    return 2.0 * np.random.default_rng(seed).standard_normal((num, classes))


def test_it_is_the_definition() -> None:
    given = logits(0, 103)
    p = np.exp(given) / np.exp(given).sum(axis=1, keepdims=True)
    scores = []
    for index in range(4):
        part = p[index * 103 // 4 : (index + 1) * 103 // 4]
        scores.append(np.exp((part * np.log(part / part.mean(axis=0))).sum(axis=1).mean()))
    found = inception_score(given, splits=4, seed=None)
    assert found.value == pytest.approx(np.mean(scores), rel=1e-12)
    assert found.over_splits == pytest.approx(np.std(scores), rel=1e-12)
    assert found.spread == pytest.approx(np.std(scores, ddof=1) / 2.0, rel=1e-12)
    assert found.num == 25


@pytest.mark.parametrize("scale", [30.0, 1e4, 1e300])
def test_sure_and_even_is_the_number_of_classes(scale: float) -> None:
    """Probabilities that vanish in float64 have finite logarithms."""
    found = inception_score(scale * np.eye(5)[np.arange(200) % 5], seed=None)
    assert found[:4] == pytest.approx((5.0, 0.0, 5.0, 5.0), rel=1e-9)


def test_unsure_is_one_and_sorted_classes_are_shuffled() -> None:
    assert inception_score(np.zeros((50, 6))).value == pytest.approx(1.0, rel=1e-14)
    assert inception_score(logits(1, 1)[np.zeros(60, int)]).value == pytest.approx(1.0, rel=1e-12)
    sorted_by_class = 30.0 * np.eye(5)[np.arange(500) // 100]
    assert inception_score(sorted_by_class, seed=None).value == pytest.approx(1.0, rel=1e-9)
    assert inception_score(sorted_by_class).value > 4.5


def test_single_precision_and_shifts_of_logits_do_not_count() -> None:
    given = logits(2, 80).astype(np.float32)
    want = inception_score(given.astype(np.float64)).value
    assert inception_score(given).value == want
    assert inception_score(given.astype(np.float64) + np.arange(80)[:, None]).value == pytest.approx(want, rel=1e-12)


def test_the_interval_contains_the_mean_score_of_sets_of_that_size() -> None:
    want = np.mean([inception_score(logits(seed, 20_000), splits=200).value for seed in range(1000, 1003)])
    found = [inception_score(logits(seed, 1000)) for seed in range(100)]
    assert sum(each.low <= want <= each.high for each in found) >= 90


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="logits: 1 of 20 rows are not finite; must be none"):
        inception_score(np.where(np.arange(40).reshape(20, 2) == 3, np.inf, 0.0))
    with pytest.raises(ValueError, match=r"logits.shape\[0\] = 9: must be at least 10 points"):
        inception_score(np.zeros((9, 3)))
    with pytest.raises(ValueError, match=r"logits.shape = \[20\]: must be \[n, c\]"):
        inception_score(np.zeros(20))
    with pytest.raises(ValueError, match="splits = 1: must be an integer >= 2"):
        inception_score(np.zeros((20, 3)), splits=1)
