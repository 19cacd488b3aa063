"""What share of samples looks like data, and of data like samples: by balls about points that reach k neighbours.

Precision and recall (Kynkäänniemi et al. 2019, equations 1 and 2): the share of samples inside the union of the data's
balls, and of data inside that of the samples' balls; the radius of a ball is the distance to the k-th other point of
its own set. Density and coverage (Naeem et al. 2020, equations 4 and 5), both with the data's balls: in how many of
them a sample lies, over k, and the share of them with a sample inside.

All depend on the numbers of points. Their intervals are those of the mean over fresh sets, of these sizes:

* of samples alone, the data fixed, where ``data_fixed``. Then samples are independent trials: the interval of precision
  is the exact binomial one, that of density Student's t. Recall and coverage are by the jackknife over groups of
  samples, up to one and a half times as wide as need be.
* of both laws otherwise. Shares of points are then no independent trials, because neighbours have their balls from each
  other. Intervals are by the jackknife over groups of both sets, in few dimensions up to twice as wide as need be.

The radii of the jackknife without a group come from a few more neighbours. Its intervals of shares are never narrower
than the exact binomial interval, as they would be where no group makes a difference.

Distances are in float64; points nearer than 3e-7 of their size (about the data's mean) are one point.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from geonoise_jax import checks
from geonoise_jax.evaluation.intervals import GROUPS, Estimate, jackknife, jackknifed, mean_of, share
from geonoise_jax.evaluation.kernel_distance import squared_distances
from geonoise_jax.evaluation.point_sets import groups_of, pair

# Distances, or comparisons of them, that are held at a time.
_ENTRIES = 2**23
# Neighbours beyond the k-th that are kept, so that k of them are left without a group.
_SPARE = 16


class PrecisionRecall(NamedTuple):
    """Shares of samples inside the data's balls, and of data inside the samples' balls."""

    precision: Estimate
    recall: Estimate


class DensityCoverage(NamedTuple):
    """Mean number of the data's balls that a sample lies in, over k, and the share of balls that hold a sample.

    Of samples of the data's own law, density is one on average, and coverage :func:`coverage_of_equal_laws`.
    """

    density: Estimate
    coverage: Estimate


def precision_recall(
    samples: Float[np.ndarray, "n *d"],
    data: Float[np.ndarray, "m *d"],
    *,
    k: int = 3,
    groups: int = GROUPS,
    data_fixed: bool = False,
) -> PrecisionRecall:
    """Return precision and recall, see the head of this module.

    Args:
        samples: n features of samples.
        data: m features of data, as many as of samples for both to mean the same.
        k: which neighbour a ball reaches.
        groups: number of groups of the jackknife.
        data_fixed: whether intervals are about other samples and these data, not about other data too.

    Raises:
        UserError: if a set has fewer than 2 features a group, or so few that k others are not left without one, or some
            that are not finite (they are counted), or the shapes differ.
    """
    samples, data = _prepared(samples, data, k, groups)
    of_data = 0 if data_fixed else groups
    inside, recalled = _in_balls(samples, data, k, of_data) > 0, _in_balls(data, samples, k, groups) > 0
    if data_fixed:
        without = recalled[:, 1:].mean(axis=0)
        found = _estimate(recalled[:, 0].mean(), without, _dealt(len(samples), groups))
        hits = int(recalled[:, 0].sum())
        return PrecisionRecall(share(int(inside.sum()), len(inside)), _at_least_binomial(found, hits, len(data)))
    return PrecisionRecall(_share(inside, len(data)), _share(recalled, len(samples)))


def density_coverage(
    samples: Float[np.ndarray, "n *d"],
    data: Float[np.ndarray, "m *d"],
    *,
    k: int = 5,
    groups: int = GROUPS,
    data_fixed: bool = False,
) -> DensityCoverage:
    """Return density and coverage, see the head of this module.

    Args:
        samples: n features of samples.
        data: m features of data.
        k: which neighbour a ball reaches.
        groups: number of groups of the jackknife.
        data_fixed: as there.

    Raises:
        UserError: as :func:`precision_recall`.
    """
    samples, data = _prepared(samples, data, k, groups)
    counts = _in_balls(samples, data, k, 0 if data_fixed else groups) / k
    density = mean_of(counts[:, 0]) if data_fixed else _mean(counts, len(data))
    low = max(density.low, 0.0)
    return DensityCoverage(density._replace(low=low), _coverage(samples, data, k, groups, data_fixed=data_fixed))


def coverage_of_equal_laws(num_samples: int, num_data: int, *, k: int = 5) -> float:
    """Return the mean coverage of samples of the data's own law, whatever that is (Naeem et al. 2020, lemma 2)."""
    steps = np.arange(1, k + 1)
    return float(1.0 - np.prod((num_data - steps) / (num_samples + num_data - steps)))


def _prepared(
    samples: Float[np.ndarray, "n *d"], data: Float[np.ndarray, "m *d"], k: int, groups: int
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]]:
    checks.integer("k", k, low=1)
    checks.integer("groups", groups, low=2)
    least = max(2 * groups, 2 * k + 2)
    samples, data = pair(samples, data, least=least, names=("samples", "data"))
    origin = data.mean(axis=0)
    return samples - origin, data - origin


def _mean(values: Float[np.ndarray, "n g"], num_centres: int) -> Estimate:
    """Return the mean over points of what they have of all balls, in the first column, with its interval.

    The other columns are of the balls without a group of centres.
    """
    groups = values.shape[1] - 1
    turn = groups_of(len(values), groups, "x")
    sizes = np.bincount(turn)
    totals = np.bincount(turn, values[:, 0])
    without_points = (totals.sum() - totals) / (len(values) - sizes)
    return _estimate(
        values[:, 0].mean(), without_points, sizes, values[:, 1:].mean(axis=0), _dealt(num_centres, groups)
    )


def _share(inside: Bool[np.ndarray, "n g"], num_centres: int) -> Estimate:
    return _at_least_binomial(_mean(inside.astype(np.float64), num_centres), int(inside[:, 0].sum()), len(inside))


def _coverage(
    samples: Float[np.ndarray, "n d"], data: Float[np.ndarray, "m d"], k: int, groups: int, *, data_fixed: bool
) -> Estimate:
    radii, nearest = _radii(data, k, 0 if data_fixed else groups), _nearest(data, samples, groups)
    covered = nearest.min(axis=1) <= radii[:, 0]
    without_samples = [(np.delete(nearest, group, axis=1).min(axis=1) <= radii[:, 0]).mean() for group in range(groups)]
    if data_fixed:
        found = _estimate(covered.mean(), without_samples, _dealt(len(samples), groups))
        return _at_least_binomial(found, int(covered.sum()), len(data))
    turn = groups_of(len(data), groups, "data")
    without_data = [(nearest.min(axis=1) <= radii[:, 1 + group])[turn != group].mean() for group in range(groups)]
    found = _estimate(covered.mean(), without_samples, _dealt(len(samples), groups), without_data, np.bincount(turn))
    return _at_least_binomial(found, int(covered.sum()), len(data))


def _estimate(value: float, *left_out_and_sizes: Sequence[float] | Float[np.ndarray, "g"]) -> Estimate:
    """Return a number with its interval, given what it is without each group, and the groups' sizes, for each set."""
    pairs = zip(left_out_and_sizes[::2], left_out_and_sizes[1::2], strict=True)
    parts = [jackknife(float(value), list(left_out), [int(size) for size in sizes]) for left_out, sizes in pairs]
    return jackknifed(float(value), parts, correct=False, lowest=0.0)


def _at_least_binomial(found: Estimate, hits: int, num: int) -> Estimate:
    trials = share(hits, num)
    low, high = min(found.low, trials.low), max(min(found.high, 1.0), trials.high)
    return found._replace(spread=max(found.spread, trials.spread), low=low, high=high)


def _dealt(num: int, groups: int) -> Int[np.ndarray, "g"]:
    return np.bincount(np.arange(num) % groups)


def _in_balls(
    x: Float[np.ndarray, "n d"], centres: Float[np.ndarray, "m d"], k: int, groups: int
) -> Int[np.ndarray, "n g"]:
    """Return in how many balls each point lies: of all centres, then of those without each group."""
    radii = _radii(centres, k, groups)
    if groups:
        radii[np.arange(len(centres)), 1 + np.arange(len(centres)) % groups] = -1.0
    widest = radii.max(axis=1)
    found = np.zeros((len(x), groups + 1), np.int64)
    for start in range(0, len(x), _step(len(centres))):
        squared = _float64(_distances, x[start : start + _step(len(centres))], centres)
        # A point is in few balls, however they are chosen: only these are looked at group by group.
        points, balls = np.nonzero(squared <= widest)
        np.add.at(found, start + points, squared[points, balls][:, None] <= radii[balls])
    return found


def _radii(points: Float[np.ndarray, "n d"], k: int, groups: int) -> Float[np.ndarray, "n g"]:
    """Return the squared distance of each point to its k-th nearest other one: of all, then without each group.

    The host selects neighbours: on CPU, jax sorts all of them.
    """
    kept = min(k + _SPARE, len(points) - 1)
    left_out = np.arange(-1, groups)[:, None]
    found = np.empty((len(points), groups + 1))
    for start in range(0, len(points), _step(len(points))):
        part = points[start : start + _step(len(points))]
        others = np.array(_float64(_distances, part, points))
        others[np.arange(len(part)), start + np.arange(len(part))] = np.inf
        which = np.argpartition(others, kept - 1, axis=1)[:, :kept]
        closest = np.take_along_axis(others, which, axis=1)
        present = np.where((which % max(groups, 1))[:, None] == left_out, np.inf, closest[:, None])
        reach = np.partition(present, k - 1, axis=2)[..., k - 1]
        found[start : start + len(part)] = np.minimum(reach, closest.max(axis=1, keepdims=True))
    return found


def _nearest(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], groups: int) -> Float[np.ndarray, "n g"]:
    """Return the squared distance of each x to the nearest y of each group."""
    return _float64(_least, x, y, groups, _step(len(y)))


def _step(columns: int) -> int:
    return max(1, _ENTRIES // columns)


def _float64(function: Callable[..., Array], *arguments: np.ndarray | int) -> np.ndarray:
    with jax.enable_x64(True):
        moved = (jnp.asarray(each) if isinstance(each, np.ndarray) else each for each in arguments)
        return np.asarray(function(*moved))


_distances = jax.jit(squared_distances)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _least(x: Float[Array, "n d"], y: Float[Array, "m d"], groups: int, step: int) -> Float[Array, "n g"]:
    padding = -len(y) % groups

    def row(point: Float[Array, "d"]) -> Float[Array, "g"]:
        found = jnp.pad(squared_distances(point[None], y)[0], (0, padding), constant_values=jnp.inf)
        return found.reshape(-1, groups).min(axis=0)

    return jax.lax.map(row, x, batch_size=step)
