"""Estimates and their intervals: shares, means, and what a jackknife over groups of points tells of any statistic.

The jackknife leaves out one group of points at a time. From the values of g groups (Busing, Meijer and van der Leeden
1999, "Delete-m jackknife for unequal m", equations 4 and 6; m_j of n points are in group j, h_j = n / m_j):

    value without bias of order 1/n:  T_J = g T - sum_j (1 - m_j / n) T_-j
    its variance:                     1/g sum_j (h_j T - (h_j - 1) T_-j - T_J)^2 / (h_j - 1)

For statistics that are about linear in the empirical law the variance is right; where they are quadratic, as a squared
distance of two equal laws is, it is too large on average (Efron and Stein 1981), so that intervals are wide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.floors import Distance

LEVEL = 0.95
# Half of a 95% interval in standard errors, as it is commonly rounded.
_NORMAL = 1.96
GROUPS = 20


class Estimate(NamedTuple):
    """A number estimated from points, and how well it is known.

    Attributes:
        value: the estimate.
        spread: its standard error.
        low, high: ends of the interval that contains the true number with 95%.
        note: what the reader must know besides; empty if nothing.
    """

    value: float
    spread: float
    low: float
    high: float
    note: str = ""

    def distance(self) -> Distance:
        """Return value and spread alone, to compare with a floor."""
        return Distance(self.value, self.spread)


class Jackknife(NamedTuple):
    """What the groups of one set of points tell of a statistic.

    Attributes:
        bias: its bias of order 1/n.
        variance: its variance, as far as this set's points cause it.
        freedom: degrees of freedom of the variance.
    """

    bias: float
    variance: float
    freedom: int


def jackknife(whole: float, without: Sequence[float], sizes: Sequence[int]) -> Jackknife:
    """Return bias and variance of a statistic, see the head of this module.

    Args:
        whole: its value of all points.
        without: its value without each group, at least 2.
        sizes: number of points of each group.

    Raises:
        UserError: if there are fewer than 2 groups, or not as many sizes.
    """
    if len(without) < 2 or len(without) != len(sizes):
        raise UserError(f"without: {len(without)} values of {len(sizes)} groups; must be of all, and at least 2")
    left_out, share = np.asarray(without, np.float64), np.asarray(sizes, np.float64) / sum(sizes)
    corrected = len(sizes) * whole - ((1.0 - share) * left_out).sum()
    pseudo = (whole - (1.0 - share) * left_out) / share
    variance = float(((pseudo - corrected) ** 2 * share / (1.0 - share)).mean())
    return Jackknife(whole - float(corrected), variance, len(sizes) - 1)


def jackknifed(
    whole: float, parts: Sequence[Jackknife], *, correct: bool, lowest: float = -math.inf, note: str = ""
) -> Estimate:
    """Return a statistic with its interval, of Student's t (Welch 1947), from the jackknife of each set it depends on.

    Args:
        whole: its value of all points.
        parts: the jackknife over each of the sets, which are independent.
        correct: subtract the bias.
        lowest: the least number that the true one can be. The value may be below it; the interval is not, and extends
            above ``lowest`` by its half-width at least, because both value and variance are small by chance together.
        note: see :class:`Estimate`.
    """
    value = whole - sum(part.bias for part in parts) if correct else whole
    variance = sum(part.variance for part in parts)
    weights = sum(part.variance**2 / part.freedom for part in parts)
    freedom = variance**2 / weights if weights > 0.0 else 1.0
    spread = math.sqrt(variance)
    half = float(stats.t.ppf(0.5 + LEVEL / 2, freedom)) * spread
    return Estimate(value, spread, max(value - half, lowest), max(value, lowest) + half, note)


def mean_of(values: Float[np.ndarray, "n"], *, note: str = "") -> Estimate:
    """Return the mean of independent numbers with Student's t interval.

    Raises:
        UserError: if there are fewer than 2.
    """
    if len(values) < 2:
        raise UserError(f"values: {len(values)}; must be at least 2")
    mean, spread = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = float(stats.t.ppf(0.5 + LEVEL / 2, len(values) - 1)) * spread
    return Estimate(mean, spread, mean - half, mean + half, note)


def geometric_mean_of(values: Float[np.ndarray, "n"]) -> Estimate:
    """Return the geometric mean of independent positive numbers with Student's t interval of the logarithm.

    Where one is infinite so is the mean, and the interval begins at the smallest. The spread is a factor.

    Raises:
        UserError: if there are fewer than 2.
    """
    if not np.isfinite(values).all():
        return Estimate(math.inf, math.inf, float(values.min()), math.inf)
    found = mean_of(np.log(values))
    value, spread, low, high = (math.exp(each) for each in (found.value, found.spread, found.low, found.high))
    return Estimate(value, spread, low, high)


def share(hits: int, num: int, *, level: float = LEVEL, note: str = "") -> Estimate:
    """Return a share of independent trials with its exact binomial interval (Clopper and Pearson 1934).

    Args:
        hits: successes.
        num: trials, at least 1.
        level: probability that the interval contains the true share, or more.
        note: see :class:`Estimate`.
    """
    value = hits / num
    interval = stats.binomtest(hits, num).proportion_ci(level)
    return Estimate(value, math.sqrt(value * (1.0 - value) / num), float(interval.low), float(interval.high), note)


def wilson(value: float, num: int, *, note: str = "") -> Estimate:
    """Return a share with the score interval of Wilson (1927), which is narrower than the exact one of :func:`share`.

    Args:
        value: the share, also of parts of trials, as where each of ``num`` draws is two trials.
        num: independent trials, at least 1.
        note: see :class:`Estimate`.
    """
    z = _NORMAL
    scale = 1.0 + z**2 / num
    centre = (value + z**2 / (2 * num)) / scale
    reach = z * math.sqrt(value * (1.0 - value) / num + z**2 / (4 * num * num)) / scale
    spread = math.sqrt(value * (1.0 - value) / num)
    return Estimate(value, spread, min(value, centre - reach), max(value, centre + reach), note)


def log_ratio(x: Float[np.ndarray, "n"], y: Float[np.ndarray, "m"], name: str) -> Estimate:
    """Return the logarithm of the ratio of two means of positive numbers, with its interval to first order.

    Args:
        x, y: independent numbers, at least 2 of each.
        name: what they are, for errors.

    Raises:
        UserError: if a mean is not positive.
    """
    variances, freedoms = [], []
    for numbers in (x, y):
        if not numbers.mean() > 0.0:
            raise UserError(f"{name}: is {numbers.mean():g}; must be positive")
        variances.append(float(numbers.var(ddof=1)) / len(numbers) / float(numbers.mean()) ** 2)
        freedoms.append(len(numbers) - 1)
    value = math.log(float(x.mean()) / float(y.mean()))
    parts = [Jackknife(0.0, *each) for each in zip(variances, freedoms, strict=True)]
    return jackknifed(value, parts, correct=False)
