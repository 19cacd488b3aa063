"""How far the distance between sets of points can be trusted: the floor that data set, and spreads.

The distance of n samples to a reference set varies with the samples, also where they are drawn from the law of the data
itself. What that variation is like is measured in two ways, which estimate the same number:

* of data, by drawing n points several times (:func:`floor`): draws without replacement, whose overlap makes them vary
  too little; for statistics that are about linear in the empirical law the standard deviation is too small by the
  factor sqrt(1 - n / N) (Cochran 1977, "Sampling Techniques", theorem 2.2), which is divided out;
* of samples, by splitting them into random halves several times (:func:`with_spread`). A half has twice the variance of
  the whole, and given the whole one half of that is left, so that the distances of the halves of one set scatter like
  those of whole sets (McCarthy 1969, "Pseudo-replication: half samples"). Near the floor, where the distance is not
  linear, they scatter up to a quarter more.

Neither contains what all sets have in common: the reference set, whose part :func:`reference_spread` measures, the
directions of a sliced distance, and, for a model, the training run that it comes from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from geonoise_jax.errors import UserError

DRAWS = 20
# A difference counts as seen from this many spreads on.
_SEEN = 2.0

Measure = Callable[[Float[np.ndarray, "n *event"]], float]


class Distance(NamedTuple):
    """A distance of a set of points to a reference, and how much it varies between such sets.

    Attributes:
        value: the distance, or its mean over several sets; infinite if a point is not finite.
        spread: standard deviation of the distance of one set; zero beside an infinite value.
    """

    value: float
    spread: float

    def range(self) -> tuple[float, float]:
        """Return the ends of what the value cannot be told apart from: two spreads to each side."""
        return self.value - _SEEN * self.spread, self.value + _SEEN * self.spread

    def differs(self, other: Distance) -> bool:
        """Return whether two distances, of independent sets, are more than two spreads of their difference apart."""
        if not (math.isfinite(self.value) and math.isfinite(other.value)):
            return self.value != other.value
        return abs(self.value - other.value) > _SEEN * math.hypot(self.spread, other.spread)

    def over(self, other: Distance) -> Distance:
        """Return the ratio of two distances of independent sets, with its spread to first order."""
        if not math.isfinite(self.value):
            return Distance(self.value, 0.0)
        ratio = self.value / other.value
        return Distance(ratio, math.hypot(self.spread, ratio * other.spread) / other.value)


def over_draws(values: Sequence[float], *, overlap: float = 0.0) -> Distance:
    """Return mean and spread of the distances of several draws.

    Args:
        values: distance of each draw, at least 2.
        overlap: share n / N of a finite set that a draw without replacement takes.

    Raises:
        ValueError: if there are fewer than 2 draws, or a draw takes the whole set, so that no two differ.
    """
    if len(values) < 2:
        raise UserError(f"values: {len(values)} draws; must be at least 2")
    if not 0.0 <= overlap < 1.0:
        raise UserError(f"overlap = {overlap}: must be in [0, 1)")
    return Distance(float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(1.0 - overlap))


def floor(
    points: Float[np.ndarray, "N *event"],
    num: int,
    measure: Measure,
    *,
    labels: Int[np.ndarray, "N"] | None = None,
    like: Int[np.ndarray, "num"] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Distance:
    """Return the distance of data, ``num`` points at a time: what samples of the data's own law reach.

    Points are drawn without replacement; with replacement where as many are asked for as there are, which adds the
    scatter of the points themselves to the distance.

    Args:
        points: the data.
        num: points of a draw, as many as there are samples to compare with.
        measure: returns the distance of a set to the reference.
        labels: classes of the data, if every draw is to have the classes of the samples.
        like: classes of the samples.
        draws: number of draws.
        seed: seed of the draws.

    Raises:
        ValueError: if only one of ``labels`` and ``like`` is given, ``num`` is not the number of the latter, or the
            data lacks a class.
    """
    strata = _strata(len(points), num, labels, like)
    generator = np.random.default_rng(seed)
    values = [
        measure(points[np.concatenate([_drawn(generator, rows, count) for rows, count in strata])])
        for _ in range(draws)
    ]
    overlap = sum(count * count / len(rows) for rows, count in strata if count < len(rows)) / num
    return over_draws(values, overlap=overlap)


def with_spread(
    samples: Float[np.ndarray, "n *event"],
    measure: Measure,
    *,
    labels: Int[np.ndarray, "n"] | None = None,
    halvings: int = DRAWS,
    seed: int = 0,
) -> Distance:
    """Return the distance of samples and its spread, from the scatter of the distances of random halves of them.

    Args:
        samples: the samples, independent of each other; at least 2.
        measure: returns the distance of a set to the reference.
        labels: classes that were asked for, if their frequencies are no part of chance: halves have the same.
        halvings: how often the samples are halved.
        seed: seed of the halves.

    Returns:
        The distance of all samples; infinite, with no spread, if a sample is not finite.

    Raises:
        ValueError: if there are fewer than 2 samples or no halving.
    """
    for name, number, low in (("samples", len(samples), 2), ("halvings", halvings, 1)):
        if number < low:
            raise UserError(f"{name}: {number}; must be at least {low}")
    if not np.isfinite(samples).all():
        return Distance(math.inf, 0.0)
    generator = np.random.default_rng(seed)
    halves = []
    for _ in range(halvings):
        order = generator.permutation(len(samples))
        if labels is not None:
            order = order[np.argsort(labels[order], kind="stable")]
        halves += [measure(samples[order[::2]]), measure(samples[order[1::2]])]
    # Both halves of each split: their mean is known, and takes no degree of freedom.
    return Distance(measure(samples), float(np.std(halves)))


def reference_spread(
    points: Float[np.ndarray, "n *event"],
    reference: Float[np.ndarray, "m *event"],
    measure_to: Callable[[Float[np.ndarray, "k *event"]], Measure],
    *,
    halvings: int = DRAWS,
    seed: int = 0,
) -> float:
    """Return how much the distance of fixed points varies with the reference set, which it has in common with others.

    Args:
        points: the points.
        reference: the reference set, at least 2 points of the same shape.
        measure_to: returns the measure of the distance to a part of the reference.
        halvings: how often the reference is halved.
        seed: seed of the halves.
    """
    return with_spread(reference, lambda part: measure_to(part)(points), halvings=halvings, seed=seed).spread


def _strata(
    size: int, num: int, labels: np.ndarray | None, like: np.ndarray | None
) -> list[tuple[Int[np.ndarray, "k"], int]]:
    """Return rows of the data and how many of them a draw has, class by class."""
    if num < 1 or size < 1:
        raise UserError(f"num = {num} of {size} points: both must be at least 1")
    if labels is None and like is None:
        return [(np.arange(size), num)]
    if labels is None or like is None or len(like) != num or len(labels) != size:
        raise UserError(f"labels and like: must be given together, one of each of {size} points and {num} samples")
    strata = []
    for label, count in zip(*np.unique(like, return_counts=True), strict=True):
        rows = np.flatnonzero(labels == label)
        if rows.size == 0:
            raise UserError(f"labels: the data has no point of class {label}, which samples have")
        strata.append((rows, int(count)))
    return strata


def _drawn(generator: np.random.Generator, rows: Int[np.ndarray, "k"], count: int) -> Int[np.ndarray, "count"]:
    return generator.choice(rows, count, replace=count >= len(rows))
