"""Distances of two laws by kernels: KID, the maximum mean discrepancy of a Gaussian kernel, and the energy distance.

All are squared distances without bias (:mod:`geonoise_jax.evaluation.kernel_sums`): equal laws give zero on average, so
that the floor needs no correction, and its scatter is what :func:`geonoise_jax.evaluation.floors.floor` measures with
the :class:`~geonoise_jax.evaluation.kernel_sums.KernelDistance` of a kernel below.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import stats
from scipy.spatial.distance import pdist

from geonoise_jax import checks
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.intervals import GROUPS, LEVEL, Estimate
from geonoise_jax.evaluation.kernel_sums import Kernel, KernelDistance
from geonoise_jax.evaluation.point_sets import pair

SUBSETS, SUBSET_SIZE = 100, 1000
# Points of each set that the median distance is taken of.
_MEDIAN_OF = 1000


class Kid(NamedTuple):
    """The kernel inception distance.

    Attributes:
        value: mean over subsets.
        spread: standard error of the value as an estimate for the two laws.
        low, high: ends of the interval that contains the distance of the laws with 95%.
        over_subsets: standard deviation over subsets, which is what is published beside the mean; it says how one
            subset scatters, not how well the mean is known.
    """

    value: float
    spread: float
    low: float
    high: float
    over_subsets: float


def kid(
    x: Float[np.ndarray, "n *d"],
    y: Float[np.ndarray, "m *d"],
    *,
    subsets: int = SUBSETS,
    subset_size: int = SUBSET_SIZE,
    seed: int = 0,
) -> Kid:
    """Return the kernel inception distance of two sets of features (Binkowski et al. 2018, section 4).

    The squared distance by the kernel ((x . y) / d + 1)^3 without bias, as the mean over random subsets, each drawn
    without replacement. Subsets overlap: with f the share of a set that a subset takes, and s^2 the variance over S
    subsets, the variance of the mean is s^2 (f / (1 - f) + 1 / S) to first order, and at most that near zero.

    Args:
        x, y: n and m features.
        subsets: number of subsets, at least 2.
        subset_size: features of a subset, at most half of each set: beyond that subsets hardly vary.
        seed: seed of the subsets.

    Raises:
        UserError: if features are too few or not finite (they are counted), or differ in shape.
    """
    x, y = pair(x, y)
    checks.integer("subsets", subsets, low=2)
    checks.integer("subset_size", subset_size, low=2)
    if 2 * subset_size > min(len(x), len(y)):
        least = f"{len(x)} and {len(y)} features"
        raise UserError(f"subset_size = {subset_size}: must be at most half of each set, of {least}")
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(subsets):
        ours, theirs = (each[generator.choice(len(each), subset_size, replace=False)] for each in (x, y))
        values.append(KernelDistance(theirs, polynomial())(ours))
    share = subset_size / min(len(x), len(y))
    over_subsets = float(np.std(values, ddof=1))
    spread = over_subsets * math.sqrt(share / (1.0 - share) + 1.0 / subsets)
    value, half = float(np.mean(values)), float(stats.t.ppf(0.5 + LEVEL / 2, subsets - 1)) * spread
    return Kid(value, spread, max(value - half, 0.0), max(value, 0.0) + half, over_subsets)


def polynomial_mmd(x: Float[np.ndarray, "n *d"], y: Float[np.ndarray, "m *d"], *, groups: int = GROUPS) -> Estimate:
    """Return the squared distance that KID estimates, of all features at once: nothing is left to a choice of subsets.

    Args:
        x, y: n and m features.
        groups: number of groups of the jackknife.

    Raises:
        UserError: if features are fewer than 2 a group, not finite (they are counted), or differ in shape.
    """
    pair(x, y)
    return KernelDistance(y, polynomial(), groups=groups).estimate(x)


def gaussian_mmd(
    x: Float[np.ndarray, "n *event"],
    y: Float[np.ndarray, "m *event"],
    *,
    bandwidth: float | None = None,
    groups: int = GROUPS,
) -> Estimate:
    """Return the squared maximum mean discrepancy of a Gaussian kernel (Gretton et al. 2012, equation 3).

    Args:
        x, y: n and m points.
        bandwidth: h of exp(-|x - y|^2 / (2 h^2)); None: :func:`median_bandwidth`. Values of different bandwidths
            cannot be compared.
        groups: number of groups of the jackknife.

    Raises:
        UserError: if points are fewer than 2 a group, not finite (they are counted), differ in shape, or the bandwidth
            is not positive.
    """
    pair(x, y)
    width = median_bandwidth(x, y) if bandwidth is None else bandwidth
    return KernelDistance(y, gaussian(width), groups=groups).estimate(x)


def energy_distance(
    x: Float[np.ndarray, "n *event"], y: Float[np.ndarray, "m *event"], *, groups: int = GROUPS
) -> Estimate:
    """Return the energy distance 2 E|x - y| - E|x - x'| - E|y - y'| (Székely and Rizzo 2013, equation 5).

    Args:
        x, y: n and m points.
        groups: number of groups of the jackknife.

    Raises:
        UserError: if points are fewer than 2 a group, not finite (they are counted), or differ in shape.
    """
    pair(x, y)
    return KernelDistance(y, energy(), groups=groups).estimate(x)


def polynomial() -> Kernel:
    """Return the kernel of KID, ((x . y) / d + 1)^3 of d features."""
    return Kernel(_polynomial, 0.0, shifted=False)


def gaussian(bandwidth: float) -> Kernel:
    """Return the kernel exp(-|x - y|^2 / (2 bandwidth^2)).

    Raises:
        UserError: if the bandwidth is not positive.
    """
    return Kernel(_gaussian, checks.real("bandwidth", bandwidth, low=0.0, open_low=True), shifted=True)


def energy() -> Kernel:
    """Return the kernel -|x - y|, whose squared distance is the energy distance."""
    return Kernel(_energy, 0.0, shifted=True)


def median_bandwidth(x: Float[np.ndarray, "n *event"], y: Float[np.ndarray, "m *event"]) -> float:
    """Return the median distance of two points of both sets together (Gretton et al. 2012, section 8).

    Of at most the first 1000 points of each set.

    Raises:
        UserError: as :func:`gaussian_mmd`, or if half of the points are copies of each other.
    """
    x, y = pair(x, y)
    found = float(np.median(pdist(np.concatenate([x[:_MEDIAN_OF], y[:_MEDIAN_OF]]))))
    if found == 0.0:
        raise UserError("bandwidth: the median distance of points is 0; must be given")
    return found


def _polynomial(x: Float[Array, "n d"], y: Float[Array, "m d"], _: Float[Array, ""]) -> Float[Array, "n m"]:
    return (x @ y.T / x.shape[1] + 1.0) ** 3


def _gaussian(x: Float[Array, "n d"], y: Float[Array, "m d"], bandwidth: Float[Array, ""]) -> Float[Array, "n m"]:
    return jnp.exp(-0.5 * squared_distances(x, y) / bandwidth**2)


def _energy(x: Float[Array, "n d"], y: Float[Array, "m d"], _: Float[Array, ""]) -> Float[Array, "n m"]:
    return -jnp.sqrt(squared_distances(x, y))


def squared_distances(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Return |x - y|^2 of each pair, zero where it is not above the rounding of the product that it is made of."""
    sizes = (x * x).sum(axis=1)[:, None] + (y * y).sum(axis=1)[None]
    squared = sizes - 2.0 * (x @ y.T)
    return jnp.where(squared > _SNAP * sizes, squared, 0.0)


# Of float64: points closer than 3e-7 of their size are one point.
_SNAP = 1e-13
