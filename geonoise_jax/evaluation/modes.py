"""Samples of a law that is known: how many belong to each of its modes, and how far they are from its manifold."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats
from scipy.spatial import KDTree

from geonoise_jax import checks
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.intervals import LEVEL, Estimate, mean_of, share
from geonoise_jax.evaluation.point_sets import rows, same_shape
from geonoise_jax.exact.planes import Circles

_ROUNDING = 1e-6


class ModeWeights(NamedTuple):
    """Shares of samples by mode, beside the true weights.

    Attributes:
        shares: share of each mode.
        low, high: ends of intervals that contain all K true shares together with 95%.
        weights: the weights that the law has.
        distance: total variation, half of the sum of absolute differences of shares and weights.
        p_value: probability of shares as far from the weights, or farther, of samples of the law (Pearson's chi-square;
            right where about 5 samples of each mode are expected).
        num: number of samples.
    """

    shares: Float[np.ndarray, "K"]
    low: Float[np.ndarray, "K"]
    high: Float[np.ndarray, "K"]
    weights: Float[np.ndarray, "K"]
    distance: float
    p_value: float
    num: int

    @property
    def missing(self) -> int:
        """Number of modes without a sample."""
        return int((self.shares == 0.0).sum())

    @property
    def differs(self) -> bool:
        """Whether a true weight is outside its interval."""
        return bool(((self.weights < self.low) | (self.weights > self.high)).any())


def mode_weights(
    labels: Int[np.ndarray, "n"], num_modes: int, weights: Float[np.ndarray, "K"] | None = None
) -> ModeWeights:
    """Return the share of each mode with intervals that hold together (exact binomial, Bonferroni).

    Args:
        labels: the mode of each of n independent samples, see :func:`nearest_mode` and :func:`nearest_circle`.
        num_modes: number K of modes, at least 2.
        weights: the true weights, positive, which sum to one; None: all the same.

    Raises:
        UserError: if there is no sample, a label is not in 0..K-1, or weights are not K positive numbers of sum one.
    """
    checks.integer("num_modes", num_modes, low=2)
    labels = np.asarray(labels)
    if labels.ndim != 1 or len(labels) == 0 or labels.dtype.kind not in "iu":
        raise UserError(f"labels = {checks.shown(labels)}: must be [n] integers, of at least one sample")
    if labels.min() < 0 or labels.max() >= num_modes:
        raise UserError(f"labels: are in {labels.min()}..{labels.max()}; must be in 0..{num_modes - 1}")
    true = _weights(weights, num_modes)
    counts = np.bincount(labels, minlength=num_modes)
    found = [share(int(count), len(labels), level=1.0 - (1.0 - LEVEL) / num_modes) for count in counts]
    shares, low, high = (np.array([getattr(each, name) for each in found]) for name in ("value", "low", "high"))
    p_value = float(stats.chisquare(counts, true * len(labels)).pvalue)
    return ModeWeights(shares, low, high, true, 0.5 * float(np.abs(shares - true).sum()), p_value, len(labels))


def nearest_mode(points: Float[np.ndarray, "n *event"], modes: Float[np.ndarray, "K *event"]) -> Int[np.ndarray, "n"]:
    """Return the number of the mode that each point is nearest to.

    Raises:
        UserError: if there is no point or mode, one is not finite (they are counted), or their shapes differ.
    """
    flat, centres = rows("points", points, least=1), rows("modes", modes, least=1)
    same_shape("points", np.shape(points)[1:], "modes", np.shape(modes)[1:])
    return np.asarray(KDTree(centres).query(flat)[1], np.int64)


def nearest_circle(points: Float[np.ndarray, "n D"], circles: Circles) -> Int[np.ndarray, "n"]:
    """Return the number of the circle, in the order of ``circles.radii``, that each point is nearest to.

    Raises:
        UserError: if there is no point, one is not finite (they are counted), or they have another dimension.
    """
    _, gaps = _from_circles(points, circles)
    return np.abs(gaps).argmin(axis=1)


def circle_distances(points: Float[np.ndarray, "n D"], circles: Circles) -> Float[np.ndarray, "n"]:
    """Return how far each point is from the nearest circle: in its plane |radius - nearest|, and off the plane.

    Raises:
        UserError: as :func:`nearest_circle`.
    """
    off, gaps = _from_circles(points, circles)
    return np.hypot(off, np.abs(gaps).min(axis=1))


def manifold_distance(
    points: Float[np.ndarray, "n *event"],
    distances: Callable[[Float[np.ndarray, "n *event"]], Float[np.ndarray, "n"]],
) -> Estimate:
    """Return the mean distance of samples to the manifold that the data lies on, with its interval.

    Args:
        points: n independent samples, at least 2.
        distances: returns the distance of each; e.g. ``lambda points: circle_distances(points, circles)``.

    Raises:
        UserError: if samples are fewer than 2 or not finite (they are counted), or there is not one distance of each
            that is finite and not negative.
    """
    rows("points", points)
    found = np.asarray(distances(points), np.float64)
    checks.shape("distances(points)", found, (len(points),))
    bad = int((~(np.isfinite(found) & (found >= 0.0))).sum())
    if bad:
        raise UserError(f"distances(points): {bad} of {len(found)} are negative or not finite; must be none")
    mean = mean_of(found)
    return mean._replace(low=max(mean.low, 0.0))


def _from_circles(
    points: Float[np.ndarray, "n D"], circles: Circles
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n K"]]:
    """Return distances from the plane, and of the radius in it from each circle's."""
    flat, frame = rows("points", points, least=1), np.asarray(circles.frame, np.float64)
    same_shape("points", np.shape(points)[1:], "circles.frame", (len(frame),))
    inside = flat @ frame
    off = np.linalg.norm(flat - inside @ frame.T, axis=1)
    return off, np.linalg.norm(inside, axis=1)[:, None] - np.asarray(circles.radii, np.float64)[None]


def _weights(weights: Float[np.ndarray, "K"] | None, num_modes: int) -> Float[np.ndarray, "K"]:
    if weights is None:
        return np.full(num_modes, 1.0 / num_modes)
    true = np.asarray(weights, np.float64)
    checks.shape("weights", true, (num_modes,))
    if not (true > 0.0).all() or abs(true.sum() - 1.0) > _ROUNDING:
        raise UserError(f"weights: from {true.min():g} on, of sum {true.sum():g}; must be positive, of sum 1")
    return true / true.sum()
