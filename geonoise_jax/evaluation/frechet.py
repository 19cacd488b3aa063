"""The Fréchet distance of two sets of features, its limit for infinitely many of them, and intervals.

    |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1^1/2 S2 S1^1/2)^1/2

of means m and covariances S (Dowson and Landau 1982, equation 4; of Inception features: Heusel et al. 2017, equation
6). It is the squared 2-Wasserstein distance of the Gaussians with these moments.

The last trace is the sum of the singular values of L1^T L2, for any factors S = L L^T. Of the factors of a Cholesky
decomposition with pivoting, which ends at the rank of S, singular values are accurate to rounding; the eigenvalues of
S1^1/2 S2 S1^1/2, their squares, lose half of the digits where a covariance has small eigenvalues or none.

**What is estimated.** The distance of the moments of N features is larger than that of the laws that they are drawn
from, by about B / N, so that values of different N cannot be compared. :func:`frechet_distance` is the published
number, of the features at hand. :func:`frechet_interval` estimates the distance of the two *laws*: the bias of order
1/N is removed and the interval contains the distance of the laws with 95%, both by a jackknife over groups, without an
assumption on the features' law. :func:`frechet_infinity` extrapolates in 1/N instead (Chong and Forsyth 2020). Where
one side is given by moments alone, as published ones are, these count as that law's. Both need more features than
dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.linalg import lapack

from geonoise_jax import checks
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.intervals import GROUPS, Estimate, Jackknife, jackknife, jackknifed
from geonoise_jax.evaluation.moments import Moments, grouped, merged, moments
from geonoise_jax.evaluation.point_sets import groups_of, same_shape

Features = Float[np.ndarray, "n *d"]
# Sizes of subsets begin at this share, as in the paper: 5,000 of 50,000.
_SMALLEST_SHARE = 0.1


class FrechetDistance(NamedTuple):
    """The Fréchet distance of two sets of features.

    Attributes:
        value: the distance, squared as always.
        means: its part |m1 - m2|^2.
        covariances: the rest.
        counts: numbers of features, None where they are not known.
        note: said if features are too few for their covariance; else empty.
    """

    value: float
    means: float
    covariances: float
    counts: tuple[int | None, int | None]
    note: str


class Frechet:
    """The Fréchet distance to one reference, whose covariance is decomposed once.

    Args:
        reference: m features, at least 2, or their moments.

    Raises:
        UserError: if features are too few or not finite.
    """

    def __init__(self, reference: Features | Moments) -> None:
        self._reference = _moments(reference, "y")
        self._factor = _factor(self._reference.covariance)

    def __call__(self, features: Features | Moments) -> float:
        """Return the distance of n features, or of their moments, to the reference."""
        return self.distance(features).value

    def distance(self, features: Features | Moments) -> FrechetDistance:
        """Return the distance with its two parts and what must be said of it.

        Raises:
            UserError: if features are fewer than 2, not finite, or not as many as the reference's.
        """
        found, reference = _moments(features, "x"), self._reference
        same_shape("x", (found.dim,), "y", (reference.dim,))
        root = np.linalg.svd(_factor(found.covariance).T @ self._factor, compute_uv=False).sum()
        means = float(((found.mean - reference.mean) ** 2).sum())
        rest = max(float(np.trace(found.covariance) + np.trace(reference.covariance) - 2.0 * root), 0.0)
        counts = found.count, reference.count
        return FrechetDistance(means + rest, means, rest, counts, _too_few(found, reference))


def frechet_distance(x: Features | Moments, y: Features | Moments) -> FrechetDistance:
    """Return the Fréchet distance of two sets of features, the number that is published.

    Args:
        x: n features, at least 2, or their moments.
        y: m features of the same kind, or their moments.

    Raises:
        UserError: if a set has fewer than 2 features or some that are not finite (they are counted), or the dimensions
            differ.
    """
    return Frechet(y).distance(x)


def frechet_interval(
    x: Features | Sequence[Moments], y: Features | Sequence[Moments] | Moments, *, groups: int = GROUPS
) -> Estimate:
    """Return the Fréchet distance of the laws of two sets of features, with its interval.

    See the head of this module. It costs one singular value decomposition of [d, d] a group of each set.

    Args:
        x: n independent features, or the moments of groups of them (:func:`~geonoise_jax.evaluation.moments.grouped`).
        y: m features or groups likewise; or moments, which then count as exact.
        groups: number of groups that features are dealt into.

    Returns:
        The estimate, which may be below zero; the interval is not. The note says if features are too few.

    Raises:
        UserError: as :func:`frechet_distance`, or if there are fewer than 2 features a group.
    """
    ours, theirs = _groups(x, groups, "x"), _groups(y, groups, "y")
    whole, reference = merged(ours), merged(theirs)
    to_y = Frechet(reference)
    value = to_y(whole)
    parts = [left_out(to_y, value, ours)]
    if len(theirs) > 1:
        parts.append(left_out(Frechet(whole), value, theirs))
    return jackknifed(value, parts, correct=True, lowest=0.0, note=_too_few(whole, reference))


def frechet_infinity(
    x: Features | Sequence[Moments], reference: Features | Moments, *, groups: int = GROUPS, seed: int = 0
) -> Estimate:
    """Return the Fréchet distance to a reference, extrapolated to infinitely many features (Chong and Forsyth 2020).

    The features are dealt into groups; the distances of random unions of k groups, from a tenth of the features to all
    of them, are fitted by a straight line in 1/N, and its value at 1/N = 0 is returned. The interval is that of a
    jackknife of the whole procedure over the groups; the reference's moments count as exact. It costs about
    ``groups`` squared decompositions of [d, d].

    Args:
        x: n independent features, or the moments of groups of them, at least 10 groups.
        reference: m features, or their moments.
        groups: number of groups that features are dealt into, at least 10.
        seed: seed of the unions.

    Returns:
        The estimate; the note says if the smallest union is too small for its covariance.

    Raises:
        UserError: as :func:`frechet_interval`, or if there are fewer than 10 groups.
    """
    parts = _groups(x, groups, "x")
    if len(parts) < 10:
        raise UserError(f"groups = {len(parts)}: must be at least 10")
    measure = Frechet(reference)
    generator = np.random.default_rng(seed)
    sizes = range(max(2, round(_SMALLEST_SHARE * len(parts))), len(parts) + 1)
    unions = [generator.choice(len(parts), size, replace=False) for size in sizes]
    whole, *without = _intercepts(measure, parts, unions)
    smallest = min((merged(parts[index] for index in union) for union in unions), key=lambda each: each.count or 0)
    found = jackknife(whole, without, [part.count or 1 for part in parts])
    return jackknifed(whole, [found], correct=False, lowest=0.0, note=_too_few(smallest, _moments(reference, "y")))


def _intercepts(measure: Frechet, parts: Sequence[Moments], unions: Sequence[np.ndarray]) -> list[float]:
    """Return the intercept of all parts, and without each of them."""
    whole = [merged(parts[index] for index in union) for union in unions]
    values = np.array([measure(union) for union in whole])
    found = [_intercept(whole, values)]
    for left_out, part in enumerate(parts):
        smaller = [
            union.without(part) if left_out in members else union for members, union in zip(unions, whole, strict=True)
        ]
        again = [
            value if one is other else measure(one) for one, other, value in zip(smaller, whole, values, strict=True)
        ]
        found.append(_intercept(smaller, np.array(again)))
    return found


def _intercept(unions: Sequence[Moments], values: Float[np.ndarray, "k"]) -> float:
    """Return the value at 1/N = 0 of the least-squares line."""
    inverse = np.array([1.0 / (union.count or 1) for union in unions])
    return float(np.polynomial.Polynomial.fit(inverse, values, 1)(0.0))


def left_out(measure: Frechet, value: float, parts: Sequence[Moments]) -> Jackknife:
    """Return the jackknife of a distance over the groups of its features.

    Args:
        measure: the distance to the reference.
        value: that of all groups together.
        parts: their moments.
    """
    whole = merged(parts)
    return jackknife(value, [measure(whole.without(part)) for part in parts], [part.count or 1 for part in parts])


def _moments(given: Features | Moments, name: str) -> Moments:
    found = given if isinstance(given, Moments) else moments(given, name=name)
    if found.count is not None:
        checks.integer(f"{name}.shape[0]", found.count, low=2)
    return found


def _groups(given: Features | Sequence[Moments] | Moments, groups: int, name: str) -> tuple[Moments, ...]:
    if isinstance(given, Moments):
        return (given,)
    if len(given) and isinstance(given[0], Moments):
        return tuple(part for part in given if isinstance(part, Moments))
    features = np.asarray(given)
    groups_of(len(features), groups, name)
    return grouped([features], groups, name=name)


def _factor(covariance: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d r"]:
    """Return L with L L^T the covariance, of as many columns as it has rank."""
    tolerance = len(covariance) * np.finfo(np.float64).eps * max(covariance.diagonal().max(initial=0.0), 0.0)
    lower, pivots, rank, _ = lapack.dpstrf(covariance, lower=1, tol=tolerance)
    factor = np.empty((len(covariance), rank))
    factor[pivots - 1] = np.tril(lower)[:, :rank]
    return factor


def _too_few(*sets: Moments) -> str:
    """Return what must be said if features are too few for their covariance."""
    counts = [each.count for each in sets if each.count is not None and not each.spans]
    if not counts:
        return ""
    return (
        f"{min(counts)} features of {sets[0].dim} dimensions: the covariance has not full rank, the distance is too "
        "large by an unknown amount, and values of other numbers of features cannot be compared"
    )
