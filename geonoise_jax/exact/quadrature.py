r"""Nodes and weights for integrals over the noise level, in eta = log(b / a).

The posterior of eta given u is a sum of positive terms, one for every point of the data, each smooth and at least
about ``1 / sqrt(2 D)`` wide in log b. A rule that integrates each of them to a relative accuracy integrates their sum
to the same, whatever the points are. Both rules here are composite Gauss-Legendre of 24 nodes whose panels are narrow
enough for that wherever the integrand counts; kinks of the integrand lie on panel edges.

fixed rule     the same nodes for all queries: the whole range; the first panels at each end ``8 / D`` wide, doubling up
               to the interior width
adaptive rule  per query: as many panels as its own :class:`~geonoise_jax.exact.survey.Landscape` needs, on the window
               in which the integrand can be above ``exp(-cut)`` of its largest value
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from geonoise_jax.exact.base import Level
from geonoise_jax.exact.prior import Domain
from geonoise_jax.exact.shapes import few_sizes
from geonoise_jax.exact.survey import Chart, Landscape

ORDER = 24
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(ORDER)
_BARYCENTRIC = np.array([1.0 / np.prod(x - np.delete(_NODES, i)) for i, x in enumerate(_NODES)])
# Derivatives at the nodes of the polynomial through values at the nodes.
_DERIVATIVE = _BARYCENTRIC[None] / _BARYCENTRIC[:, None] / (_NODES[:, None] - _NODES[None] + np.eye(ORDER))
_DERIVATIVE -= np.diag(_DERIVATIVE.sum(axis=1))
# Displacements, in half widths of a panel, above which a derivative says too little.
_SHIFT = 1e-3
# Legendre coefficients from the values at the nodes: two in the middle of the spectrum, and the two highest.
_SPECTRUM = np.stack(
    [
        [(n + 0.5) * _WEIGHTS * np.polynomial.Legendre.basis(n)(_NODES) for n in pair]
        for pair in ((ORDER // 2 - 1, ORDER // 2), (ORDER - 2, ORDER - 1))
    ]
)
# A Gauss rule errs from degree 2 ORDER on. The logarithm of a peak's coefficients falls like the square of the degree,
# or faster: from the top to there it falls more than five times as far as from the middle to the top.
_DECAYS = 6
# A panel of so much of the chart's measure gives mass, mean and variance of a peak to this accuracy, and to others as
# it is wider or narrower by a small power (measured on single peaks, D = 32 to 3072).
_ACCURACY, _WIDTH, _WIDTH_EXPONENT = 1e-5, 28.0, 0.03
# Where the integrand is lower, wider panels do.
_TAPER = 1.0 / 32.0
_TAIL_NATS = 0.5
_FOCUS = 0.03


@dataclasses.dataclass(frozen=True)
class Rule:
    """How integrals over the noise level are taken.

    Attributes:
        accuracy: relative accuracy to reach.
        adaptive: choose nodes per query.
        dim: number of entries D of an event.
    """

    accuracy: float
    adaptive: bool
    dim: int

    @property
    def cut(self) -> float:
        """Number of nats below its maximum at which the integrand is neglected."""
        return _TAIL_NATS - math.log(self.accuracy)

    @property
    def unit(self) -> float:
        """Width of a panel, in units of the chart's measure."""
        return _WIDTH * (self.accuracy / _ACCURACY) ** _WIDTH_EXPONENT

    @property
    def panel_width(self) -> float:
        """Width of an interior panel of the fixed rule."""
        return self.unit / max(10.0, 2.8 * math.sqrt(self.dim))

    def most_panels(self, chart: Chart) -> int:
        """Number of panels, at least as many as resolve every point's posterior over the whole range."""
        return few_sizes(chart.measure[-1] / self.unit)

    def fixed_edges(self, domain: Domain) -> np.ndarray:
        """Panel edges of the fixed rule, graded towards both ends and with an edge at every kink."""
        length, width = domain.high - domain.low, self.panel_width
        first = min(width, 8.0 / self.dim)
        doublings = math.ceil(math.log2(width / first)) if width > first else 0
        graded = first * (2.0 ** np.arange(1, doublings + 1) - 1.0)
        graded = graded[graded < 0.25 * length]
        start, stop = (graded[-1], length - graded[-1]) if graded.size else (0.0, length)
        interior = np.linspace(start, stop, max(2, math.ceil((stop - start) / width) + 1))
        return np.unique(
            [*domain.low + np.concatenate([[0.0], graded, interior, length - graded, [length]]), *domain.kinks]
        )


@jax.jit
def gauss_legendre(edges: Float[Array, "B edges"]) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
    """Return nodes and weights of 24 per panel, T = 24 P, increasing.

    A narrow panel far from zero has nodes that are rounded to parts of its width. The weights are those of the rounded
    nodes, to first order: what a node is displaced by is known, and so is the derivative of the polynomial through all.
    """
    low, high = edges[:, :-1], edges[:, 1:]
    middle = 0.5 * (low + high)
    # Exact differences, in which the rounding of the middle shows.
    below, above = low - middle, high - middle
    centre, half = 0.5 * (below + above)[..., None], 0.5 * (above - below)[..., None]
    apart = centre + half * jnp.asarray(_NODES, edges.dtype)[None, None]
    nodes = middle[..., None] + apart
    shift = ((nodes - middle[..., None]) - apart) / jnp.where(half > 0.0, half, 1.0)
    shift = jnp.where(jnp.abs(shift).max(axis=-1, keepdims=True) <= _SHIFT, shift, 0.0)
    slopes = jnp.asarray(_WEIGHTS[:, None] * _DERIVATIVE, edges.dtype)
    moved = jnp.einsum("bpi,ij->bpj", shift, slopes, precision=jax.lax.Precision.HIGHEST)
    weights = half * (jnp.asarray(_WEIGHTS, edges.dtype)[None, None] - moved)
    return nodes.reshape(len(edges), -1), weights.reshape(len(edges), -1)


class Panels(NamedTuple):
    """Where a query's integral is taken.

    Attributes:
        edges: of the panels, [B, P + 1]; those of width zero hold nothing.
        focus: a level below which there is little of the integral, of arrays [B].
        outside: bound on the share of the integral that is left out, [B].
    """

    edges: Float[Array, "B edges"]
    focus: Level
    outside: Float[Array, "B"]


def place_panels(landscape: Landscape, chart: Chart, rule: Rule, domain: Domain) -> Panels:
    """Divide every query's window into panels, as many as it needs, with one more edge at each kink.

    The panels that it does not need have width zero and lie in equal numbers on either side. Where a kink lies outside
    the window its panel is empty too.
    """
    kept = chart.eta, chart.measure, chart.growth, chart.level
    grid = jax.tree.map(lambda values: values.astype(landscape.upper.dtype), kept)
    return _place_panels(landscape, grid, rule.cut, rule.unit, domain.kinks, rule.most_panels(chart), domain.open_low)


@functools.partial(jax.jit, static_argnums=(5, 6))
def _place_panels(
    landscape: Landscape,
    grid: tuple[Array, Array, Array, Level],
    cut: ArrayLike,
    unit: ArrayLike,
    kinks: tuple[ArrayLike, ...],
    most: int,
    open_low: bool,
) -> Panels:
    eta, measure, growth, level = grid
    depth = landscape.highest - landscape.upper
    top = jnp.argmin(depth, axis=1)
    mass = jnp.exp(-jnp.maximum(depth, 0.0)) * jnp.pad(jnp.diff(eta), (1, 0))[None]
    below = jnp.cumsum(mass, axis=1)
    # What is averaged may be much larger in a tail than at the peak.
    gain = jnp.maximum(_growth(growth, top, mass / below[:, -1:]), 0.0)
    tail = jnp.maximum(depth - gain, 0.0)
    inside = tail <= cut
    first = jnp.maximum(jnp.argmax(inside, axis=1) - 1, 0)[:, None]
    last = jnp.minimum(len(eta) - jnp.argmax(inside[:, ::-1], axis=1), len(eta) - 1)[:, None]
    number = jnp.arange(len(eta))[None]
    density = jnp.exp(-_TAPER * jnp.minimum(tail, cut))
    steps = 0.5 * (density[:, 1:] + density[:, :-1]) * jnp.diff(measure)[None] / unit
    steps = jnp.where((number[:, 1:] > first) & (number[:, 1:] <= last), steps, 0.0)
    position = jnp.pad(jnp.cumsum(steps, axis=1), ((0, 0), (1, 0)))
    needed = jnp.clip(jnp.ceil(position[:, -1:]), 1, most)
    spare = jnp.floor(0.5 * (most - needed))
    wanted = jnp.clip((jnp.arange(most + 1)[None] - spare) / needed, 0.0, 1.0) * position[:, -1:]
    edges = jax.vmap(lambda at, x: jnp.interp(at, x, eta))(wanted, position)
    low, high = eta[first], eta[last]
    edges = jnp.where(wanted <= 0.0, low, jnp.where(wanted >= position[:, -1:], high, edges))
    extra = [jnp.clip(jnp.full_like(low, kink), low, high) for kink in kinks]
    # What is compared exactly at one level is nearly as exact at higher noise, but not at lower.
    focus = jnp.argmax(below >= _FOCUS * below[:, -1:], axis=1)
    at_focus = Level(*(values[focus] for values in level))
    # Where the range goes on for ever, as much per unit eta as at its end may lie beyond.
    beyond = jnp.exp(-jnp.maximum(depth[:, 0], 0.0)) if open_low else 0.0
    left_out = beyond + jnp.where((number < first) | (number > last), mass * jnp.exp(gain), 0.0).sum(axis=1)
    return Panels(jnp.sort(jnp.concatenate([edges, *extra], axis=1), axis=1), at_focus, left_out / below[:, -1])


@jax.jit
def unresolved(spacing: Float[Array, "B T"], mass: Float[Array, "B T"]) -> Float[Array, "B"]:
    """Estimate the error of a composite Gauss-Legendre sum from the decay of its integrand's Legendre coefficients.

    Args:
        spacing: quadrature weights, 24 nodes a panel; zero in empty panels.
        mass: the terms of the sum, spacing times integrand.
    """
    values = (mass / jnp.where(spacing > 0.0, spacing, 1.0)).reshape(len(spacing), -1, ORDER)
    width = spacing.reshape(values.shape).sum(-1)
    middle, tail = jnp.abs(jnp.einsum("bpo,cno->cbpn", values, jnp.asarray(_SPECTRUM, mass.dtype))).sum(-1)
    middle, tail = (width * middle).sum(-1), (width * tail).sum(-1)
    # What rounding leaves in the highest coefficients is no sign of structure.
    noise = 8.0 * jnp.finfo(mass.dtype).eps * (width[..., None] * jnp.abs(values)).sum((-2, -1)) / ORDER
    decay = jnp.minimum(tail / jnp.maximum(middle, jnp.finfo(mass.dtype).tiny), 1.0)
    return jnp.where(tail > noise, tail * decay**_DECAYS, 0.0)


def _growth(growth: Float[Array, "3 n"], top: Float[Array, "B"], mass: Float[Array, "B n"]) -> Float[Array, "B n"]:
    """Return the logarithm by which what is averaged may be larger at a level than on average.

    1 / b^2 and 1 / a beside their values at the peak, and the square of the distance of t from its mean beside the
    variance.
    """
    powers = (growth[:2, None] - growth[:2, top][..., None]).max(axis=0)
    t = jnp.exp(0.5 * growth[2])[None]
    mean = (mass * t).sum(axis=1, keepdims=True)
    square = (t - mean) ** 2
    tiny = jnp.finfo(t.dtype).tiny
    var = jnp.maximum((mass * square).sum(axis=1, keepdims=True), tiny)
    return jnp.maximum(powers, jnp.log(jnp.maximum(square / var, tiny)))
