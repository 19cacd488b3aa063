r"""The blind field of the ring, exact or smoothed, in the few coordinates that it depends on.

The data lie in the plane of the first two axes of R^D: a field of theirs is a function of the point in that plane and
of the distance from it. With weights J of noise level and datum given u, of the fixed nodes of a quadrature,

    f*(u) = sum J [c x_k + (d / b)(u - a x_k)]

and its mollification ``E f*(u + h xi)`` is an average over four numbers, whatever D: two of the plane, the one of xi
along the way out of it, and the length of the rest, chi-distributed of D - 3 degrees. Its nodes are the same for all u.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from jaxtyping import ArrayLike as ArrayLike
from scipy.stats import chi, norm, qmc

from geonoise_jax import checks
from geonoise_jax.errors import UserError
from geonoise_jax.fields.base import arguments, compiled
from geonoise_jax.process.process import Process
from geonoise_jax.studies.ring import NUM_DATA, circle_points

# Distance of neighbouring data.
SPACING = 2.0 * np.sin(np.pi / NUM_DATA)
# Gauss-Legendre panels, see Nodes; at least so many, and so many times the root of D.
_ORDER, _LEAST, _PER_ROOT = 16, 6, 1.7


@dataclasses.dataclass(frozen=True)
class Smoothing:
    """What is done to an exact blind field; by default nothing.

    Attributes:
        width: standard deviation h, per coordinate, of the Gaussian over which it is averaged.
        floor: least noise-to-signal ratio b / a of the prior; 0 for that of the process.
        ceiling: greatest one; infinite for that of the process.
        slope: largest slope at the data, ``|f - f(x_k)| <= slope |u - x_k|`` with x_k the nearest datum.

    Raises:
        ValueError: if a number is out of its range.
    """

    width: float = 0.0
    floor: float = 0.0
    ceiling: float = np.inf
    slope: float = np.inf

    def __post_init__(self) -> None:
        """Validate the numbers."""
        for name in ("width", "floor"):
            checks.real(name, getattr(self, name), low=0.0)
        for name in ("ceiling", "slope"):
            value = getattr(self, name)
            if not value > 0.0:
                raise UserError(f"{name} = {value!r}: must be positive")
        if not self.floor < self.ceiling:
            raise UserError(f"floor = {self.floor!r}: must be below the ceiling, {self.ceiling!r}")

    def times(self, process: Process) -> tuple[float, float]:
        """Return the ends of the uniform law of t that is left of that on the whole range of the process."""
        schedule = process.schedule
        low, high = schedule.t_min, schedule.t_max
        inside = [float(schedule.eta(jnp.asarray(t))) for t in (low, high)]
        if self.floor > 0.0 and np.log(self.floor) > inside[0]:
            low = float(schedule.t_of_eta(jnp.log(self.floor)))
        if np.isfinite(self.ceiling) and np.log(self.ceiling) < inside[1]:
            high = float(schedule.t_of_eta(jnp.log(self.ceiling)))
        return low, high


class Nodes:
    """Noise levels of a quadrature over a uniform law of t, evenly spread in log(b / a).

    Attributes:
        log_weight: logarithm of weight times density, up to a constant, [T].
        b, deficit, c, d: coefficients there; ``deficit`` is 1 - a.
    """

    def __init__(self, process: Process, dim: int, low: float, high: float) -> None:
        """Place Gauss-Legendre panels between two times, in R^dim."""
        panels = max(_LEAST, int(np.ceil(_PER_ROOT * np.sqrt(dim))))
        schedule = process.schedule
        ends = schedule.eta(jnp.asarray([low, high]))
        x, w = np.polynomial.legendre.leggauss(_ORDER)
        fraction = (np.arange(panels)[:, None] + 0.5 * (x + 1.0)) / panels
        eta = ends[0] + (ends[1] - ends[0]) * jnp.asarray(fraction.ravel(), ends.dtype)
        t = jnp.clip(schedule.t_of_eta(eta), schedule.t_min, schedule.t_max)
        a, b, da, db = schedule.coeffs(t)
        k = process.coeffs(t)
        weight = jnp.asarray(np.tile(w, panels), ends.dtype) / (db / b - da / a)
        self.log_weight, self.b = jnp.log(weight), b
        self.deficit, self.c, self.d = schedule.signal_deficit(t), k.c, k.d


_DATA = ("log_weight", "b", "deficit", "c", "d", "offsets", "slope", "anchor")


@functools.partial(jax.tree_util.register_dataclass, data_fields=list(_DATA), meta_fields=["process", "event_shape"])
@dataclasses.dataclass(frozen=True)
class RingField:
    """A blind Field: of 16 points on the unit circle in the first plane of R^D, smoothed or not.

    Attributes:
        process: schedule and target.
        event_shape: ``(D,)``.
        log_weight, b, deficit, c, d: of the quadrature, see :class:`Nodes`.
        offsets: displacements of the mollification: in the plane, on the way out of it, beside it.
        slope: largest slope at the data.
        anchor: the value at a datum, in units of the datum.
    """

    process: Process
    event_shape: tuple[int, ...]
    log_weight: Float[Array, "T"]
    b: Float[Array, "T"]
    deficit: Float[Array, "T"]
    c: Float[Array, "T"]
    d: Float[Array, "T"]
    offsets: Float[Array, "K 4"]
    slope: Float[Array, ""]
    anchor: Float[Array, ""]

    @property
    def blind(self) -> bool:
        """Whether the field ignores t: it does."""
        return True

    @compiled
    def __call__(self, u: Float[ArrayLike, "b D"], t: Float[ArrayLike, "*#b"] | None = None) -> Float[Array, "b D"]:
        """Return the predictions of the target; t has no effect."""
        at, _ = arguments(self, u, t)
        plane, out = at[:, :2], at[:, 2:]
        away = jnp.sqrt(jnp.square(out).sum(1))

        def add(total: tuple[Array, Array], offset: Array) -> tuple[tuple[Array, Array], None]:
            along = away + offset[2] if out.shape[1] else away
            beside = offset[3] if out.shape[1] else jnp.zeros(())
            value, gain = self._at(plane + offset[None, :2], jnp.square(along) + jnp.square(beside))
            return (total[0] + value, total[1] + gain * along), None

        (value, radial), _ = jax.lax.scan(add, (jnp.zeros_like(plane), jnp.zeros_like(away)), self.offsets)
        count = len(self.offsets)
        gain = radial / jnp.where(away > 0.0, away, 1.0)
        return self._limited(at, jnp.concatenate([value, gain[:, None] * out], axis=1) / count)

    def _at(
        self, plane: Float[Array, "b 2"], square: Float[Array, "b"]
    ) -> tuple[Float[Array, "b 2"], Float[Array, "b"]]:
        """Return the part in the plane, and the factor of the part out of it."""
        points = _points(plane.dtype)[None]
        e = plane[:, None] - points
        near = jnp.square(e).sum(-1) + square[:, None]
        inner = (e * points).sum(-1)
        deficit, b = self.deficit[None, None], self.b[None, None]
        distance = near[..., None] + deficit * (2.0 * inner[..., None] + deficit)
        prior = (self.log_weight - self.event_shape[0] * jnp.log(self.b))[None, None]
        logits = prior - 0.5 * distance / jnp.square(b)
        weight = jnp.exp(logits - logits.max(axis=(1, 2), keepdims=True))
        rate = self.d / self.b
        rows = jnp.stack([jnp.ones_like(rate), rate, self.c + rate * self.deficit], axis=1)
        sums = weight @ rows / weight.sum((1, 2))[:, None, None]
        return (sums[..., 1:2] * e + sums[..., 2:] * points).sum(1), sums[..., 1].sum(1)

    def _limited(self, u: Float[Array, "b D"], value: Float[Array, "b D"]) -> Float[Array, "b D"]:
        """Return the field with its slope at the nearest datum limited."""
        points = jnp.pad(_points(u.dtype), ((0, 0), (0, u.shape[1] - 2)))
        squares = jnp.square(u[:, None] - points[None]).sum(-1)
        datum = points[squares.argmin(1)]
        distance = jnp.sqrt(squares.min(1))
        rest = value - self.anchor * datum
        size = jnp.sqrt(jnp.square(rest).sum(1))
        factor = jnp.minimum(1.0, self.slope * distance / jnp.where(size > 0.0, size, 1.0))
        return self.anchor * datum + jnp.where(jnp.isinf(self.slope), 1.0, factor)[:, None] * rest


def ring_field(process: Process, dim: int, smoothing: Smoothing, draws: int = 16) -> RingField:
    """Return the blind field of the ring in R^dim, with a uniform law of t, smoothed.

    Args:
        process: schedule and target.
        dim: dimension D, at least 2.
        smoothing: what is done to it.
        draws: nodes of the mollification, a power of 2; pairs are opposite to each other.

    Raises:
        ValueError: if the dimension or the number of nodes is out of its range.
    """
    checks.integer("dim", dim, low=2)
    if checks.integer("draws", draws, low=2).bit_count() != 1:
        raise UserError(f"draws = {draws}: must be a power of 2")
    nodes = Nodes(process, dim, *smoothing.times(process))
    lowest = process.coeffs(jnp.asarray(process.schedule.t_min))
    anchor = lowest.c + lowest.d / lowest.b * process.schedule.signal_deficit(process.schedule.t_min)
    offsets = smoothing.width * normal_nodes(dim, draws) if smoothing.width > 0.0 else np.zeros((1, 4))
    kept = (nodes.log_weight, nodes.b, nodes.deficit, nodes.c, nodes.d)
    rest = (jnp.asarray(each, nodes.b.dtype) for each in (offsets, smoothing.slope, anchor))
    return RingField(process, (dim,), *kept, *rest)


def ring_points(dim: int) -> Float[np.ndarray, "16 D"]:
    """Return the data: 16 equidistant points of the unit circle in the plane of the first two axes."""
    return np.pad(np.asarray(_points(jnp.float32)), ((0, 0), (0, dim - 2)))


@functools.cache
def normal_nodes(dim: int, draws: int) -> Float[np.ndarray, "K 4"]:
    """Return Sobol' nodes of a standard normal vector in the coordinates of :class:`RingField`, and their opposites."""
    half = qmc.Sobol(4, seed=0).random(draws // 2)
    vectors = norm.ppf(half[:, :3])
    beside = chi.ppf(half[:, 3:], dim - 3) if dim > 3 else np.zeros((len(half), 1))
    return np.concatenate([np.hstack([sign * vectors, beside]) for sign in (1.0, -1.0)])


def _points(dtype: jnp.dtype) -> Float[Array, "16 2"]:
    return jnp.asarray(circle_points(), dtype)
