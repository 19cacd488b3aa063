"""Distances between two sets of points."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from geonoise_jax.errors import UserError

_PROJECTIONS = 1024
# Projections that are compared at a time.
_ENTRIES = 2**22
_ALL = slice(None)


class SlicedWasserstein:
    """The sliced 2-Wasserstein distance to one reference set (Bonneel et al. 2015), for many sets of points.

    The root of the mean, over random unit directions, of the squared 2-Wasserstein distance of the projections; the
    latter is exact, also for sets of different sizes. Two samples of one distribution are a positive distance apart,
    which shrinks with their sizes: compare with such a floor (:mod:`geonoise_jax.evaluation.floors`).

    Args:
        reference: m points.
        num_projections: number of directions.
        seed: seed of the directions, which are the same for every set.

    Raises:
        ValueError: if the reference is empty or a coordinate is not finite.
    """

    def __init__(
        self, reference: Float[np.ndarray, "m *event"], *, num_projections: int = _PROJECTIONS, seed: int = 0
    ) -> None:
        flat = _flat("y", reference)
        directions = np.random.default_rng(seed).standard_normal((flat.shape[1], num_projections))
        self._event = reference.shape[1:]
        self._directions = directions / np.linalg.norm(directions, axis=0)
        self._sorted = self._project(flat)

    def __call__(self, points: Float[np.ndarray, "n *event"]) -> float:
        """Return the distance of n points to the reference.

        Raises:
            ValueError: if there is no point, its shape is another one, or a coordinate is not finite.
        """
        flat = _flat("x", points)
        if points.shape[1:] != self._event:
            raise UserError(f"x.shape[1:] = {points.shape[1:]}: must equal y.shape[1:] = {self._event}")
        weights, rows, reference_rows = _coupling(len(flat), self._sorted.shape[1])
        step = max(1, _ENTRIES // len(rows))
        squared = []
        for start in range(0, len(self._sorted), step):
            part = slice(start, start + step)
            apart = self._project(flat, part)[:, rows] - self._sorted[part, reference_rows]
            squared.append(apart**2 @ weights)
        return math.sqrt(np.concatenate(squared).mean())

    def _project(self, flat: Float[np.ndarray, "n d"], part: slice = _ALL) -> Float[np.ndarray, "p n"]:
        """Return the sorted projections on some directions, one direction a row."""
        return np.sort(self._directions[:, part].T @ flat.T, axis=1)


def sliced_wasserstein(
    x: Float[np.ndarray, "n *event"],
    y: Float[np.ndarray, "m *event"],
    *,
    num_projections: int = _PROJECTIONS,
    seed: int = 0,
) -> float:
    """Return the sliced 2-Wasserstein distance of two empirical distributions, see :class:`SlicedWasserstein`.

    Args:
        x: n points.
        y: m points of the same shape.
        num_projections: number of directions.
        seed: seed of the directions.

    Raises:
        ValueError: if a set is empty, the shapes differ, or a coordinate is not finite.
    """
    return SlicedWasserstein(y, num_projections=num_projections, seed=seed)(x)


def _flat(name: str, points: np.ndarray) -> np.ndarray:
    if len(points) == 0:
        raise UserError(f"{name}: must hold at least one point")
    flat = np.asarray(points, np.float64).reshape(len(points), -1)
    bad = int((~np.isfinite(flat)).any(axis=1).sum())
    if bad:
        raise UserError(f"{name}: must be finite, but {bad} of {len(flat)} points are not")
    return flat


def _coupling(n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Optimal coupling of two sorted samples: masses, and the row of each sample that they join."""
    # In units of 1 / (n m), so that the common refinement of the two quantile functions is exact.
    cuts = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)
    return np.diff(cuts) / (n * m), cuts[:-1] // m, cuts[:-1] // n
