r"""The clock of a blind field: what the distance to a datum becomes, predicted in one dimension.

Of a single datum at the origin a blind field is radial, ``F(r) u / r``, and so are its mollification, its field of a
truncated prior and its field of limited slope. The distance follows the sampler's own equation in one dimension,

    dr / dt = mu(t) r + nu(t) F(r),    F(r) = r E[d / b | r]

which :class:`RadialField` is: a Field like any other, sampled by the same sampler on the same grid. Where mu = 0 the
variables separate: from r_0 to r_1 a sample needs ``int dr / F`` of the clock, and has ``int nu dt``. Flow matching has
1, and with the exact ``F = E[s]``, s of the chi law of D - 1 degrees, needs ``|eps| / E[s]``, more for half of the
starts: they stop at ``r = |eps| - E[s]``, of standard deviation 0.71 in every dimension. A field with smaller F
everywhere leaves every sample farther out, whatever made it smaller. Of limited slope L the same integral gives

    r = R exp((|eps| - E[s]) / R - 1) where |eps| - E[s] <= R = E[s] / L,  |eps| - E[s] elsewhere.

What makes it faster is a prior that ends at t_1: ``F ~ r / t_1`` beyond ``r = t_1 E[s]``, so that the way in takes
``t_1 (1 + log(|eps| / (t_1 E[s])))``, no more than the clock has where ``|eps| <= E[s] t_1 exp(1 / t_1 - 1)``.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from jaxtyping import ArrayLike as ArrayLike
from scipy.special import logsumexp
from scipy.stats import chi

from geonoise_jax.fields.base import arguments
from geonoise_jax.process.process import Process
from geonoise_jax.stability import chi_moment
from geonoise_jax.studies.smoothing.fields import Nodes, RingField, Smoothing, ring_points

_RADII, _SMALLEST, _LARGEST = 400, 1e-4, 6.0
_HERMITE, _QUANTILES = 32, 32
# Of the search of the attractor of the denoiser, along the way from the centre of the ring to a datum.
_PLACES, _STEP = 1201, 1e-3


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["log_radius", "rate"], meta_fields=["process", "event_shape"]
)
@dataclasses.dataclass(frozen=True)
class RadialField:
    """A blind Field in one dimension, ``u F(|u|) / |u|``, from a table of ``F(r) / r``.

    Attributes:
        process: schedule and target.
        log_radius: logarithms of the radii, ascending.
        rate: ``F(r) / r`` there.
        event_shape: ``(1,)``.
    """

    process: Process
    log_radius: Float[Array, "R"]
    rate: Float[Array, "R"]
    event_shape: tuple[int, ...] = (1,)

    @property
    def blind(self) -> bool:
        """Whether the field ignores t: it does."""
        return True

    def __call__(self, u: Float[ArrayLike, "b 1"], t: Float[ArrayLike, "*#b"] | None = None) -> Float[Array, "b 1"]:
        """Return the speed along the radius; t has no effect."""
        at, _ = arguments(self, u, t)
        return at * jnp.interp(jnp.log(jnp.maximum(jnp.abs(at), 1e-30)), self.log_radius, self.rate)


def radial_field(process: Process, dim: int, smoothing: Smoothing) -> RadialField:
    """Return the smoothed blind field of one datum at the origin of R^dim, along the radius."""
    radii = np.geomspace(_SMALLEST, _LARGEST, _RADII) * np.sqrt(dim)
    rate = _rate(process, dim, smoothing, radii)
    if np.isfinite(smoothing.slope):
        rate = np.minimum(rate, smoothing.slope)
    return tabulated(process, radii, rate)


def share_in_time(dim: int, end: float, within: float) -> float:
    """Return the share of the starts of flow matching in R^dim that a prior of t up to ``end`` leads to a datum.

    Args:
        dim: dimension D.
        end: the greatest t of the prior, at most 1.
        within: distance from the datum that counts as there.
    """
    speed = chi_moment(dim - 1.0, 1.0)
    return float(chi.cdf(speed * end * np.exp((1.0 + within / speed) / end - 1.0), dim))


def tabulated(process: Process, radii: Float[np.ndarray, "R"], rate: Float[np.ndarray, "R"]) -> RadialField:
    """Return the radial field of a table of ``F(r) / r``, which is constant beyond its ends."""
    dtype = jnp.result_type(float)
    return RadialField(process, jnp.asarray(np.log(radii), dtype), jnp.asarray(rate, dtype))


def _rate(process: Process, dim: int, smoothing: Smoothing, radii: Float[np.ndarray, "R"]) -> Float[np.ndarray, "R"]:
    """Return ``F(r) / r``: the mean of d / b given r, averaged over the Gaussian of the mollification."""
    nodes = Nodes(process, dim, *smoothing.times(process))
    log_weight, b, d = (np.asarray(each, np.float64) for each in (nodes.log_weight, nodes.b, nodes.d))

    def mean(r: np.ndarray) -> np.ndarray:
        logs = log_weight - dim * np.log(b) - 0.5 * np.square(r[..., None] / b)
        return np.exp(logsumexp(logs, axis=-1, b=d / b) - logsumexp(logs, axis=-1))

    if smoothing.width == 0.0:
        return mean(radii)
    z, w = np.polynomial.hermite_e.hermegauss(_HERMITE)
    levels = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    beside = smoothing.width * (chi.ppf(levels, dim - 1) if dim > 1 else np.zeros(_QUANTILES))
    along = radii[:, None] + smoothing.width * z
    away = np.sqrt(np.square(along)[..., None] + np.square(beside))
    table = np.geomspace(1e-6, 3.0 * away.max(), 4 * _RADII)
    speed = along[..., None] * np.interp(np.log(np.maximum(away, 1e-6)), np.log(table), mean(table))
    return (speed.mean(-1) @ (w / w.sum())) / radii


def attractor(field: RingField) -> tuple[float, float]:
    """Return where a field of an x-type target comes to rest, as distance from the datum, and how firmly.

    The estimate of x that the field means, along the way from the centre of the ring to a datum, crosses the identity
    at the point of rest; by the symmetry of the ring it does not leave that way.

    Args:
        field: of the target x, or of equilibrium matching.

    Returns:
        Distance of the outermost such point from the datum, and the largest derivative of the estimate there along the
        axes of R^D, in the plane and out of it: the point attracts where it is below 1.
    """
    first, dtype = jnp.asarray(ring_points(field.event_shape[0])[:1]), field.b.dtype
    places = np.linspace(0.0, 1.05, _PLACES)
    ahead = np.asarray(_estimate(field, jnp.asarray(places, dtype)[:, None] * first))[:, 0] - places
    crossing = np.flatnonzero((ahead[:-1] >= 0.0) & (ahead[1:] < 0.0))
    last = int(crossing[-1]) if len(crossing) else 0
    rest = places[last] + (places[1] - places[0]) * ahead[last] / (ahead[last] - ahead[last + 1])
    axes = jnp.eye(first.shape[1], dtype=dtype)[:3]
    ends = [_estimate(field, rest * first + sign * _STEP * axes) for sign in (1.0, -1.0)]
    slopes = np.diagonal(np.asarray(ends[0] - ends[1]))[: len(axes)] / (2.0 * _STEP)
    return abs(1.0 - float(rest)), float(slopes.max())


def _estimate(field: RingField, u: Float[Array, "b D"]) -> Float[Array, "b D"]:
    """Return the estimate of x of a field of x, whose anchor is 1, or of u - x, whose anchor is 0."""
    value = field(u)
    return field.anchor * value + (1.0 - field.anchor) * (u - value)
