"""Sums of a kernel over all pairs of points, in blocks, and the unbiased squared distance of two laws made of them.

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y)

of independent x, x' of one law and y, y' of the other (Gretton et al. 2012, "A kernel two-sample test", lemma 6), each
expectation by the mean over pairs of different points: without bias, so that equal laws give zero on average and values
below zero by chance. Sums are kept by groups of points, which gives the jackknife for the price of one pass.

Everything is in float64, whatever jax's default is: the three terms are alike, and the distance is what they differ by.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from geonoise_jax.evaluation.intervals import GROUPS, Estimate, Jackknife, jackknife, jackknifed
from geonoise_jax.evaluation.point_sets import groups_of, rows, same_shape

# Kernel values that are held at a time: 64 MiB.
_ENTRIES = 2**23


class Kernel(NamedTuple):
    """A kernel of points.

    Attributes:
        values: returns its value for each pair of a row of x and one of y, given the parameter.
        parameter: a bandwidth, say.
        shifted: whether it depends on x - y alone, so that both may be moved to the origin before.
    """

    values: Callable[[Float[Array, "n d"], Float[Array, "m d"], Float[Array, ""]], Float[Array, "n m"]]
    parameter: float
    shifted: bool


class KernelDistance:
    """The unbiased squared distance to one reference set by a kernel, for many sets of points.

    Args:
        reference: m points, at least 2.
        kernel: the kernel.
        groups: number of groups of the jackknife.

    Raises:
        UserError: if points are too few, or not finite.
    """

    def __init__(self, reference: Float[np.ndarray, "m *event"], kernel: Kernel, *, groups: int = GROUPS) -> None:
        flat = rows("y", reference)
        self._kernel, self._groups = kernel, groups
        self._event = np.shape(reference)[1:]
        self._origin = flat.mean(axis=0) if kernel.shifted else np.zeros(flat.shape[1])
        self._reference = flat - self._origin

    def __call__(self, points: Float[np.ndarray, "n *event"]) -> float:
        """Return the distance of n points, at least 2, to the reference.

        Raises:
            UserError: if points are too few, not finite, or of another shape.
        """
        x, y = self._moved(points), self._reference
        own, cross = self._sum(x, None, 1), self._sum(x, y, 1)
        return _distance(own.sum(), self._own, cross.sum(), len(x), len(y))

    def estimate(self, points: Float[np.ndarray, "n *event"]) -> Estimate:
        """Return the distance of the two laws with its interval, by the jackknife over groups of both sets.

        The interval is not below zero, where the value may be.

        Raises:
            UserError: as above, or if there are fewer than 2 points a group.
        """
        x, y = self._moved(points), self._reference
        sizes = [np.bincount(groups_of(len(each), self._groups, name)) for each, name in ((x, "x"), (y, "y"))]
        own, other, cross = (self._sum(a, b, self._groups) for a, b in ((x, None), (y, None), (x, y)))
        value = _distance(own.sum(), other.sum(), cross.sum(), len(x), len(y))
        parts = [
            _left_out(value, own, other.sum(), cross.sum(axis=1), sizes[0], len(y)),
            _left_out(value, other, own.sum(), cross.sum(axis=0), sizes[1], len(x)),
        ]
        return jackknifed(value, parts, correct=False, lowest=0.0)

    @functools.cached_property
    def _own(self) -> float:
        return float(self._sum(self._reference, None, 1).sum())

    def _moved(self, points: Float[np.ndarray, "n *event"]) -> Float[np.ndarray, "n d"]:
        flat = rows("x", points)
        same_shape("x", np.shape(points)[1:], "y", self._event)
        return flat - self._origin

    def _sum(
        self, x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"] | None, groups: int
    ) -> Float[np.ndarray, "g g"]:
        """Return the kernel's sum over the pairs of each two groups; without y, over pairs of different points of x."""
        other = x if y is None else y
        step = max(1, _ENTRIES // len(other))
        with jax.enable_x64(True):
            points = jnp.asarray(x), jnp.asarray(other), jnp.asarray(self._kernel.parameter)
            return np.asarray(_group_sums(self._kernel.values, groups, step, y is None, *points))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _group_sums(
    values: Callable[..., Float[Array, "n m"]],
    groups: int,
    step: int,
    same: bool,
    x: Float[Array, "n d"],
    y: Float[Array, "m d"],
    parameter: Float[Array, ""],
) -> Float[Array, "g g"]:
    columns = jnp.arange(len(y))
    members = _members(len(y), groups)

    def row(item: tuple[Array, Array]) -> Float[Array, "g"]:
        point, index = item
        found = values(point[None], y, parameter)[0]
        return (jnp.where(columns == index, 0.0, found) if same else found) @ members

    return _members(len(x), groups).T @ jax.lax.map(row, (x, jnp.arange(len(x))), batch_size=step)


def _members(num: int, groups: int) -> Float[Array, "num g"]:
    """Return one where a point is in a group, which are dealt in turn."""
    return jax.nn.one_hot(jnp.arange(num) % groups, groups, dtype=float)


def _distance(own: float, other: float, cross: float, n: int, m: int) -> float:
    return float(own / (n * (n - 1)) + other / (m * (m - 1)) - 2.0 * cross / (n * m))


def _left_out(
    value: float,
    own: Float[np.ndarray, "g g"],
    other: float,
    cross: Float[np.ndarray, "g"],
    sizes: Int[np.ndarray, "g"],
    m: int,
) -> Jackknife:
    """Return the jackknife over the groups of one set, whose cross sums with the whole other set are given."""
    kept = own.sum() - 2.0 * own.sum(axis=1) + own.diagonal()
    without = [
        _distance(kept[group], other, cross.sum() - cross[group], int(sizes.sum() - size), m)
        for group, size in enumerate(sizes)
    ]
    return jackknife(value, without, [int(size) for size in sizes])
