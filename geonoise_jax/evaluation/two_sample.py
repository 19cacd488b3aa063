"""The classifier two-sample test: can a classifier tell samples from data that it has not seen?"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats
from sklearn.neighbors import KNeighborsClassifier

from geonoise_jax.evaluation.intervals import share
from geonoise_jax.evaluation.point_sets import pair


class TwoSampleTest(NamedTuple):
    """What a classifier of samples against data reaches.

    Attributes:
        value: its accuracy on held-out points; one half if it cannot tell them apart.
        spread: standard error of the accuracy.
        low, high: ends of the exact binomial interval of this classifier's accuracy, 95%.
        p_value: probability of this accuracy or a better one if both laws are equal.
        num: number of held-out points, half of them samples.
    """

    value: float
    spread: float
    low: float
    high: float
    p_value: float
    num: int


def classifier_two_sample(
    x: Float[np.ndarray, "n *event"], y: Float[np.ndarray, "m *event"], *, classifier: Any = None, seed: int = 0
) -> TwoSampleTest:
    """Return the held-out accuracy of a classifier of x against y (Lopez-Paz and Oquab 2017, section 3).

    As many points of both sets, drawn without replacement, are split into halves: one to learn from, one to test on.

    Args:
        x, y: n and m independent points of one shape, at least 4; the larger set is cut to the size of the other.
        classifier: has ``fit(points, labels)`` and ``predict(points)`` as those of scikit-learn; None: the nearest
            neighbours of the paper, as many as the root of the number of points to learn from.
        seed: seed of draws and halves; the classifier has its own.

    Raises:
        UserError: if points are too few or not finite (they are counted), or their shapes differ.
    """
    x, y = pair(x, y, least=4)
    num = min(len(x), len(y))
    half = num // 2
    generator = np.random.default_rng(seed)
    ours, theirs = (each[generator.choice(len(each), num, replace=False)] for each in (x, y))
    known, tested = (np.concatenate([ours[part], theirs[part]]) for part in (slice(half), slice(half, None)))
    labels = np.repeat([1, 0], half), np.repeat([1, 0], num - half)
    if classifier is None:
        classifier = KNeighborsClassifier(int(np.sqrt(len(known))))
    hits = int((np.asarray(classifier.fit(known, labels[0]).predict(tested)) == labels[1]).sum())
    p_value = float(stats.binomtest(hits, len(tested), 0.5, alternative="greater").pvalue)
    return TwoSampleTest(*share(hits, len(tested))[:4], p_value, len(tested))
