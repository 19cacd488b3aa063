"""Distances between two sets of points."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

_PROJECTIONS = 1024


def sliced_wasserstein(
    x: Float[np.ndarray, "n *event"],
    y: Float[np.ndarray, "m *event"],
    *,
    num_projections: int = _PROJECTIONS,
    seed: int = 0,
) -> float:
    """Return the sliced 2-Wasserstein distance of two empirical distributions (Bonneel et al. 2015).

    The root of the mean, over random unit directions, of the squared 2-Wasserstein distance of the projections; the
    latter is exact, also for sets of different sizes. Two samples of one distribution are a positive distance apart,
    which shrinks with their sizes: compare with such a floor.

    Args:
        x: n points.
        y: m points of the same shape.
        num_projections: number of directions.
        seed: seed of the directions.

    Raises:
        ValueError: if a set is empty, the shapes differ, or a coordinate is not finite.
    """
    flat_x, flat_y = _flat("x", x), _flat("y", y)
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(f"x.shape[1:] = {x.shape[1:]}: must equal y.shape[1:] = {y.shape[1:]}")
    directions = np.random.default_rng(seed).standard_normal((flat_x.shape[1], num_projections))
    directions /= np.linalg.norm(directions, axis=0)
    weights, rows_x, rows_y = _coupling(len(flat_x), len(flat_y))
    sorted_x, sorted_y = np.sort(flat_x @ directions, axis=0), np.sort(flat_y @ directions, axis=0)
    squared = weights @ (sorted_x[rows_x] - sorted_y[rows_y]) ** 2
    return math.sqrt(squared.mean())


def _flat(name: str, points: np.ndarray) -> np.ndarray:
    if len(points) == 0:
        raise ValueError(f"{name}: must hold at least one point")
    flat = np.asarray(points, np.float64).reshape(len(points), -1)
    bad = int((~np.isfinite(flat)).any(axis=1).sum())
    if bad:
        raise ValueError(f"{name}: must be finite, but {bad} of {len(flat)} points are not")
    return flat


def _coupling(n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Optimal coupling of two sorted samples: masses, and the row of each sample that they join."""
    # In units of 1 / (n m), so that the common refinement of the two quantile functions is exact.
    cuts = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)
    return np.diff(cuts) / (n * m), cuts[:-1] // m, cuts[:-1] // n
