r"""Where along the noise level the posterior of a query lies: bounds on its density everywhere, from a few levels.

The posterior of one point is only ``1 / sqrt(2 D)`` wide in log b, far less than the levels at which a large set can be
searched are apart. What is narrow in it, though, is known in closed form. With * any point and e_k = u - x_k,

(S1)  p(u | t) b^D (2 pi)^(D/2) = exp(-|u - a x_*|^2 / 2 b^2) Z,
      Z = E_x exp((P - a Q / 2) / tau),  P = u . (x - x_*),  Q = |x|^2 - |x_*|^2,  tau = b^2 / a

and the *free energy* ``Phi(a, tau) = tau log Z`` is convex in (a, tau) together: it is the perspective of the log
partition function of an exponential family in (1 / tau, a / 2 tau). Its slope in tau is minus the information
``KL(p(x | u, t) || p(x))``, which for a finite set lies between 0 and ``max_k log 1 / pi_k``. Along the curve
(a(t), tau(t)), convex in that tau lies below its chords, two neighbouring levels therefore bound log Z between them,

(S2)  log Z <= chord of Phi / tau + information x (tau_chord / tau - 1)
(S3)  log Z >= chord of two levels on one side, prolonged, / tau - information x (1 - tau_prolonged / tau)

both exact at the levels and where one point, or one and the same average, rules between them. No cluster of points,
however small, can hide.

Laws whose densities cost little are surveyed at levels two widths of the narrowest possible posterior apart instead.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from geonoise_jax.exact.base import LOG_2PI, Anchor, Distribution, Level, compiled_scores
from geonoise_jax.exact.prior import Domain, Prior
from geonoise_jax.exact.shapes import GRID, few_sizes

# Search levels of a large set: one each half a unit of log b, or unit of log a.
_PER_LOG_B, _PER_LOG_A = 2.0, 1.0
_PER_ETA = 6.0  # nodes per unit eta, in which everything but single peaks is smooth
_STRIDE = 4  # grid points, each half a width of the narrowest posterior, between the levels of a cheap law
_BUMP = 0.75  # nats by which a peak between two such levels may be higher than both


class Landscape(NamedTuple):
    """Bounds on the log integrand of every query over the grid of its :class:`Chart`.

    Attributes:
        upper: an upper bound, [B, n].
        highest: a lower bound on its largest value, [B, 1].
    """

    upper: Float[Array, "B n"]
    highest: Float[Array, "B 1"]


class Chart(NamedTuple):
    """The range of the noise level on a grid, as constants in float64; everything that does not depend on queries.

    Attributes:
        eta: grid, [n], increasing.
        measure: how many nodes of a quadrature lie below each, at the density of the reference accuracy, [n].
        log_prior: log prior density per unit eta, [n].
        log_b: [n].
        growth: logarithms of quantities whose averages are asked for and that grow towards an end: 1 / b^2, 1 / a and
            t^2, [3, n].
        level: a, b and deficit, each [n].
        search: numbers of the grid points that are searched, [M].
        interpolation: what bounds log Z between them; None where the search is dense.
    """

    eta: np.ndarray
    measure: np.ndarray
    log_prior: np.ndarray
    log_b: np.ndarray
    growth: np.ndarray
    level: Level
    search: np.ndarray
    interpolation: Interpolation | None


class Interpolation(NamedTuple):
    """Bounds as sums of two levels' values: upper and the two prolonged lower ones, each [3, n].

    Attributes:
        first, second: numbers of the two levels.
        weight1, weight2: factors of their log Z.
        per_information: factor of the information that is added.
        usable: whether the two levels bound the point.
    """

    first: np.ndarray
    second: np.ndarray
    weight1: np.ndarray
    weight2: np.ndarray
    per_information: np.ndarray
    usable: np.ndarray


def survey(
    distribution: Distribution, prior: Prior, domain: Domain, projection: Any, dim: int, dtype: Any
) -> tuple[Chart, Landscape]:
    """Bound the integrand ``p(u | t) p(t)`` of every query of a projection over the whole range."""
    anchor = distribution.anchor(projection)
    chart = chart_of(prior, domain, dim, sparse=anchor is not None)
    # In NumPy, which compiles nothing. No argument has 64 bits where the observations have not: what jax makes of those
    # depends on the precision that was enabled when a program was compiled.
    cast = functools.partial(_cast, dtype=dtype)
    grid: Any = jax.tree.map(cast, chart._replace(interpolation=None))
    num = jax.tree.leaves(projection)[0].shape[0]
    searched: Any = (np.broadcast_to(values[chart.search], (num, len(chart.search))) for values in grid.level)
    level = Level(*map(jnp.asarray, searched))
    scores = compiled_scores(distribution, projection, level)
    if anchor is None:
        return chart, _dense(scores.relative, grid.log_prior, jax.tree.map(cast, _lerp(chart)))
    between = jax.tree.map(cast, chart.interpolation)
    return chart, _sparse((scores.relative, scores.offset), level, anchor, grid, between, dim)


def _cast(values: np.ndarray, dtype: Any) -> np.ndarray:
    """Return numbers in the dtype of the observations, and indices in 32 bits."""
    return values.astype({"f": dtype, "i": np.int32}.get(values.dtype.kind, values.dtype))


@functools.lru_cache(maxsize=256)
def chart_of(prior: Prior, domain: Domain, dim: int, *, sparse: bool) -> Chart:
    """Return the chart of a prior's range for events of ``dim`` entries."""
    chart = _grid(prior, domain, dim)
    if not sparse:
        return chart._replace(search=np.unique([*range(0, len(chart.eta), _STRIDE), len(chart.eta) - 1]))
    search = _search_points(chart)
    return chart._replace(search=search, interpolation=_interpolation(chart, search))


@functools.lru_cache(maxsize=256)
def _grid(prior: Prior, domain: Domain, dim: int) -> Chart:
    """Return a chart without levels to search."""
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        fine = _measured(prior, np.linspace(domain.low, domain.high, GRID), dim)
        at = np.linspace(0.0, fine.measure[-1], few_sizes(fine.measure[-1] + 2.0))
        return _measured(prior, np.interp(at, fine.measure, fine.eta), dim)


def _measured(prior: Prior, eta: np.ndarray, dim: int) -> Chart:
    """Return a chart on a grid, without levels to search."""
    nodes = jax.tree.map(np.asarray, prior.at_eta(jnp.asarray(eta), GRID))
    a, b, log_prior, t, level = nodes.coeffs.a, nodes.coeffs.b, nodes.log_prior, nodes.t, nodes.level
    step, log_b = np.diff(eta), np.log(b)
    width = np.hypot(2.8 * math.sqrt(dim) * np.abs(np.diff(log_b)), 2.0 * _sharpness(log_prior, eta) * step)
    measure = np.concatenate([[0.0], np.cumsum(_PER_ETA * step + width)])
    growth = np.stack([-2.0 * log_b, -np.log(a), 2.0 * np.log(t)])
    return Chart(eta, measure, log_prior, log_b, growth, level, np.arange(0), None)


def _sharpness(log_prior: np.ndarray, eta: np.ndarray) -> np.ndarray:
    """Return the inverse width of a Gaussian with the curvature of the log prior, between the points of a grid."""
    slope = np.gradient(np.where(np.isfinite(log_prior), log_prior, -1e4), eta)
    curvature = np.sqrt(np.maximum(-np.gradient(slope, eta), 0.0))
    return np.maximum(curvature[1:], curvature[:-1])


def _search_points(chart: Chart) -> np.ndarray:
    spacing = _PER_LOG_B * np.abs(np.diff(chart.log_b)) + _PER_LOG_A * np.abs(np.diff(np.log(chart.level.a)))
    position = np.concatenate([[0.0], np.cumsum(spacing)])
    levels = np.linspace(0.0, position[-1], few_sizes(position[-1] + 2.0))
    return np.unique(np.searchsorted(position, levels, side="left").clip(0, len(position) - 1))


def _interpolation(chart: Chart, search: np.ndarray) -> Interpolation:
    a, b, deficit = chart.level
    tau = b * b / a
    # The coordinate along chords in which the curve is exact: a, or tau where a does not vary.
    along = deficit if np.ptp(deficit) > 0.0 else tau
    last, number = len(search) - 1, np.arange(len(tau))
    left = (np.searchsorted(search, number, side="right") - 1).clip(0, last - 1)
    pairs = [(left, left + 1), (left - 1, left), (left + 1, left + 2)]
    rows = []
    for sign, (first, second) in zip((1.0, -1.0, -1.0), pairs, strict=True):
        exists = (first >= 0) & (second <= last)
        first, second = first.clip(0, last - 1), second.clip(1, last)
        one, two = search[first], search[second]
        fraction = (along - along[one]) / (along[two] - along[one])
        weight1, weight2 = (1.0 - fraction) * tau[one] / tau, fraction * tau[two] / tau
        mixed = weight1 + weight2
        # A chord prolonged to where tau would be negative says nothing.
        usable = exists & (mixed > 0.0)
        rows.append((first, second, weight1, weight2, sign * np.abs(mixed - 1.0), usable))
    return Interpolation(*(np.stack(values) for values in zip(*rows, strict=True)))


def _lerp(chart: Chart) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for every grid point the searched one below it, the next, and how far it is on the way."""
    search, number = chart.search, np.arange(len(chart.eta))
    left = (np.searchsorted(search, number, side="right") - 1).clip(0, len(search) - 2)
    share = (number - search[left]) / (search[left + 1] - search[left])
    return search, left, share


@jax.jit
def _dense(log_p: Float[Array, "B M"], log_prior: Float[Array, "n"], lerp: tuple[Array, Array, Array]) -> Landscape:
    search, left, share = lerp
    values = log_p + log_prior[search][None]
    share = share[None]
    between = values[:, left] * (1.0 - share) + values[:, left + 1] * share
    return Landscape(between + _BUMP, values.max(axis=1, keepdims=True))


@functools.partial(jax.jit, static_argnums=5)
def _sparse(
    log_p: tuple[Float[Array, "B M"], Float[Array, "B"]],
    level: Level,
    anchor: Anchor,
    grid: Any,
    between: Any,
    dim: int,
) -> Landscape:
    relative, offset = log_p
    constant = offset[:, None] + dim * (jnp.log(level.b) + 0.5 * LOG_2PI)
    log_z = relative + (constant + _half_distance(anchor, level))
    one, two = log_z[:, between.first], log_z[:, between.second]  # [B, 3, n]
    weight1, weight2, per = (x[None] for x in between[2:5])
    bounds = weight1 * one + weight2 * two + per * anchor.information
    bounds = jnp.where(between.usable[None], bounds, -jnp.inf)
    own = grid.log_prior - dim * (grid.log_b + 0.5 * LOG_2PI)
    base = own[None] - _half_distance(anchor, Level(*(values[None] for values in grid.level)))
    upper = base + bounds[:, 0]
    lower = base + jnp.maximum(bounds[:, 1], bounds[:, 2])
    # Prolonged chords may be missing everywhere but at the levels themselves, where the upper bound is exact.
    at_levels = jnp.where(weight2[:, 0] * weight1[:, 0] == 0.0, upper, -jnp.inf)
    return Landscape(upper, jnp.maximum(lower, at_levels).max(axis=1, keepdims=True))


def _half_distance(anchor: Anchor, level: Level) -> Float[Array, "B n"]:
    """Return ``|u - a x_*|^2 / 2 b^2``."""
    distance2 = anchor.residual2 + level.deficit * (2.0 * anchor.cross + level.deficit * anchor.centre2)
    return 0.5 * distance2 / (level.b * level.b)
