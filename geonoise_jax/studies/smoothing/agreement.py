"""How well the clock in one dimension, and the point of rest, foresee where samples of smoothed fields stop."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from geonoise_jax.studies.quantiles import quantile
from geonoise_jax.studies.smoothing.study import CLEAN, TARGETS, Study, interval

# Points that a fit needs at least.
_FEW = 3


class Agreement(NamedTuple):
    """Measured against foreseen distances of one target with a clock in one dimension, over all smoothings.

    Attributes:
        ratio: measured over foreseen 90% quantile, V numbers; 1 where both are clean.
        low, high: ends of the 95% interval of each.
        height: the same of distances from the plane of the data; 1 where both are clean, and in the plane.
        slope: of measured against foreseen medians, fitted by least squares.
        correlation: of the two.
    """

    ratio: Float[np.ndarray, "V"]
    low: Float[np.ndarray, "V"]
    high: Float[np.ndarray, "V"]
    height: Float[np.ndarray, "V"]
    slope: float
    correlation: float


def agreement(study: Study, number: int, column: int) -> Agreement:
    """Return the agreement of a target, by its place, in a dimension, by its place."""
    distance, height = (each[number, column] for each in (study.ends.distance, study.ends.height))
    foreseen = study.clock[number, column]
    ratio, low, high = (_ratio(each, foreseen[:, 1]) for each in (quantile(distance), *interval(distance).T))
    slope, correlation = _fitted(foreseen[:, 0], np.median(distance, axis=-1))
    return Agreement(ratio, low, high, _ratio(quantile(height), foreseen[:, 2]), slope, correlation)


def _ratio(measured: Float[np.ndarray, "V"], foreseen: Float[np.ndarray, "V"]) -> Float[np.ndarray, "V"]:
    same = (measured <= CLEAN) & (foreseen <= CLEAN)
    return np.where(same, 1.0, measured / np.where(same, 1.0, foreseen))


def _fitted(x: Float[np.ndarray, "V"], y: Float[np.ndarray, "V"]) -> tuple[float, float]:
    if len(x) < _FEW or not (np.ptp(x) > 0.0 and np.ptp(y) > 0.0):
        return float("nan"), float("nan")
    return float(np.polyfit(x, y, 1)[0]), float(np.corrcoef(x, y)[0, 1])


def told_by_rest(study: Study, number: int, column: int) -> Float[np.ndarray, "V"]:
    """Return of every smoothing whether the point of rest tells if a target of x is clean."""
    if TARGETS[number].clock:
        raise ValueError(f"{TARGETS[number].name}: has a clock, not a point of rest")
    shift, slope = np.moveaxis(study.rest[number, column], -1, 0)
    return (quantile(study.ends.distance[number, column]) <= CLEAN) == ((shift <= CLEAN) & (slope < 1.0))
