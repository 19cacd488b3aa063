"""What studies of the neighbourhood of a datum share: how near they go, what happens in the last decade, its limits."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from scipy.integrate import quad

# Half decades of the distance to the datum.
PER_DECADE = 2
# Directions from it, each beside its opposite.
PAIRS = 4
# Below it the determinant of a signal target counts as zero.
SMALLEST_NOISE = 1e-11
_SMALL = 1e-6
# Of s around its mode, in standard deviations that are at most 1.
_REACH = 12.0

Ranged = tuple[float, float, float]


def radii(low: float, high: float) -> Float[np.ndarray, "R"]:
    """Return distances 10^-low, ..., 10^-high, without the last, by half decades."""
    return 10.0 ** -np.arange(low, high, 1.0 / PER_DECADE)


def decay(values: Float[np.ndarray, "R K"]) -> Float[np.ndarray, "K"]:
    """Return with which power of the distance numbers vanish, in its last decade."""
    return np.log10(values[-1 - PER_DECADE] / values[-1])


def ranged(values: Float[np.ndarray, "..."]) -> Ranged:
    """Return mean, smallest and largest of numbers."""
    return float(values.mean()), float(values.min()), float(values.max())


def range_text(numbers: Ranged) -> str:
    """Return a number with its range, in three decimals and without a minus before zero."""
    value, low, high = (round(each, 3) + 0.0 for each in numbers)
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def moments(m: float, tilt: float, orders: tuple[float, ...]) -> list[float]:
    """Return ``E[s^q]`` for several q where s has a density proportional to ``s^(m - 1) exp(-s^2 / 2 - tilt s)``.

    Args:
        m: degrees, positive.
        tilt: ``rho n . x_k``.
        orders: the q; infinite where ``m + q <= 0``.
    """
    mode = 0.5 * (math.sqrt(tilt * tilt + 4.0 * max(m - 1.0, 0.0)) - tilt)

    def log_weight(s: float) -> float:
        return (m - 1.0) * math.log(s) - 0.5 * s * s - tilt * s

    top = log_weight(max(mode, _SMALL))

    def integral(q: float) -> float:
        if m + q <= 0.0:
            return math.inf
        low, high = max(0.0, mode - _REACH), max(mode, 0.0) + _REACH

        def integrand(s: float) -> float:
            return math.exp(log_weight(s) - top + q * math.log(s)) if s > 0.0 else 0.0

        return float(quad(integrand, low, high, points=[max(mode, _SMALL)], limit=400, epsabs=0.0)[0])

    total = integral(0.0)
    return [integral(q) / total for q in orders]
