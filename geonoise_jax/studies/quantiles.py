"""The quantile that studies of distances report, and its interval."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.stats import binom

QUANTILE = 0.9


def quantile(values: Float[np.ndarray, "*k n"], level: float = QUANTILE) -> Float[np.ndarray, "*k"]:
    """Return a quantile along the last axis, one of the numbers there, of which some may be infinite."""
    return np.quantile(values, level, axis=-1, method="inverted_cdf")


def quantile_interval(
    values: Float[np.ndarray, "*k n"], quantile: float, coverage: float = 0.95
) -> Float[np.ndarray, "*k 2"]:
    """Return the ends of a distribution-free interval of a quantile of numbers that are not negative.

    Args:
        values: n independent numbers along the last axis; infinite ones are the largest.
        quantile: the level, in (0, 1).
        coverage: least probability that the interval holds the quantile, but for ends out of reach of n numbers.

    Returns:
        Two order statistics; zero or infinity where n numbers are too few for one.
    """
    n = values.shape[-1]
    low, high = (int(binom.ppf(level, n, quantile)) for level in (0.5 - 0.5 * coverage, 0.5 + 0.5 * coverage))
    ordered = np.sort(values, axis=-1)
    edges = np.zeros((*values.shape[:-1], 1)), np.full((*values.shape[:-1], 1), np.inf)
    # Of the order statistics 0, 1, ..., n + 1, of which the first and the last are the edges.
    return np.concatenate([edges[0], ordered, edges[1]], axis=-1)[..., [low, high + 1]]
