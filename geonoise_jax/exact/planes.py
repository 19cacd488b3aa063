"""Laws supported on a linear subspace, whose optimal fields depend on u only through its part in the subspace.

Derivation, frame P: [D, d] with orthonormal columns, p = P^T u, rho = |p|, perp = u - P p:

subspace   x = P z, z ~ N(0, s^2 I_d); v = a^2 s^2 + b^2:
           log p(u | t) = -|perp|^2 / 2 b^2 - rho^2 / 2 v - (D - d) log b - d/2 log v - D/2 log 2 pi
           D_t = (a s^2 / v) P p,   R_t = perp + (b^2 / v) P p
circles    x = R_i P (cos, sin) with probability w_i; k_i = a R_i rho / b^2:
           p(u | t) = (2 pi b^2)^(-D/2) sum_i w_i exp(-(|perp|^2 + (rho - a R_i)^2) / 2 b^2) exp(-k_i) I0(k_i)
           D_t = (P p / rho) sum_i omega_i R_i I1(k_i) / I0(k_i),   omega_i the normalised summands
           R_t = perp + (P p / rho) sum_i omega_i [(rho - a R_i) + a R_i (1 - I1(k_i) / I0(k_i))]

Both have D_t and R_t of the form ``mean_scale P p`` and ``perp + residual_scale P p``, so that averages over noise
levels cost nothing in dimension D.
"""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from geonoise_jax.checks import refused
from geonoise_jax.errors import UserError
from geonoise_jax.exact import bessel, checks
from geonoise_jax.exact.base import LOG_2PI, Distribution, Level, Scores, centre_node, log_ratio
from geonoise_jax.exact.pytrees import pytree
from geonoise_jax.process.keys import threefry


class InPlane(NamedTuple):
    """Parts of u in and off the subspace.

    Attributes:
        inside: ``P p``, [B, D].
        perp: ``u - P p``, [B, D].
        inside2: rho^2, [B, 1].
        perp2: |perp|^2, [B, 1].
    """

    inside: Float[Array, "B D"]
    perp: Float[Array, "B D"]
    inside2: Float[Array, "B 1"]
    perp2: Float[Array, "B 1"]


class _Plane(Distribution):
    """A law on the column space of ``frame``."""

    frame: Float[Array, "D d"]

    def project(self, u: Float[Array, "B D"], signal: float) -> InPlane:  # noqa: ARG002
        p = jnp.dot(u, self.frame, precision=jax.lax.Precision.HIGHEST)
        inside = jnp.dot(p, self.frame.T, precision=jax.lax.Precision.HIGHEST)
        perp = u - inside
        return InPlane(inside, perp, (p * p).sum(-1, keepdims=True), (perp * perp).sum(-1, keepdims=True))

    def average(
        self,
        projection: InPlane,
        level: Level,  # noqa: ARG002
        scores: Scores,
        alpha: Float[Array, "J B T"],
        beta: Float[Array, "J B T"],
    ) -> Float[Array, "J B D"]:
        mean_scale, residual_scale = scores.cache
        inside = (alpha * mean_scale[None] + beta * residual_scale[None]).sum(-1)[..., None]
        return inside * projection.inside[None] + beta.sum(-1)[..., None] * projection.perp[None]

    @abc.abstractmethod
    def scores(self, projection: InPlane, level: Level, used: Bool[Array, "B T"] | None = None) -> Scores:
        """Return log p(u | t), with ``cache = (mean_scale, residual_scale)``, each [B, T]."""

    def _noise_volume(self, level: Level, dims: int) -> tuple[Float[Array, "B T"], Float[Array, "B"]]:
        """Return ``-dims log(b / b_0)`` and ``-dims log b_0``, b_0 the middle level."""
        reference = centre_node(level.b)
        return -dims * log_ratio(level.b, reference), -dims * jnp.log(reference[:, 0])


@pytree(data=("frame", "scale"), static=("event_shape",))
class Subspace(_Plane):
    """An isotropic Gaussian on a linear subspace: ``x = frame z``, ``z ~ N(0, scale^2 I_d)``.

    Attributes:
        frame: orthonormal columns, [D, d].
        scale: standard deviation of z.
    """

    scale: Float[Array, ""]

    def __init__(self, frame: Any, scale: Any) -> None:
        """Build the law.

        Raises:
            ValueError: if the columns of ``frame`` are not orthonormal, or ``scale`` is not positive.
        """
        frame = checks.frame("Subspace.frame", frame)
        scale = checks.array("Subspace.scale", scale, ndim=0)
        if not scale > 0.0:
            raise refused("Subspace.scale", scale, "positive")
        self._set(frame=frame, scale=scale, event_shape=frame.shape[:1])

    def sample(self, key: Key[Array, ""], num: int) -> Float[Array, "num D"]:
        z = jax.random.normal(threefry(key), (num, self.frame.shape[1]), self.frame.dtype)
        return jnp.dot(self.scale * z, self.frame.T, precision=jax.lax.Precision.HIGHEST)

    def scores(self, projection: InPlane, level: Level, used: Bool[Array, "B T"] | None = None) -> Scores:  # noqa: ARG002
        inner = self.frame.shape[1]
        a, b2, s2 = level.a, level.b * level.b, self.scale * self.scale
        total = a * a * s2 + b2
        reference = centre_node(total)
        volume, offset = self._noise_volume(level, self.dim - inner)
        relative = -0.5 * (projection.perp2 / b2 + projection.inside2 / total + inner * log_ratio(total, reference))
        offset = offset - 0.5 * inner * jnp.log(reference[:, 0]) - 0.5 * self.dim * LOG_2PI
        return Scores(relative + volume, offset, (a * s2 / total, b2 / total))


@pytree(data=("radii", "weights", "frame"), static=("event_shape",))
class Circles(_Plane):
    """Uniform laws on concentric circles in a plane.

    Attributes:
        radii: [K], not negative.
        weights: [K], summing to one.
        frame: orthonormal columns that span the plane, [D, 2].
    """

    radii: Float[Array, "K"]
    weights: Float[Array, "K"]

    def __init__(self, radii: Any, weights: Any = None, frame: Any = None) -> None:
        """Build the law; ``weights=None`` gives every circle the same, ``frame=None`` is the plane itself (D = 2).

        Raises:
            ValueError: if a radius is negative, the weights do not sum to one, or ``frame`` is not [D, 2] with
                orthonormal columns.
        """
        radii = checks.array("Circles.radii", radii, ndim=1)
        if not bool((radii >= 0.0).all()):
            raise UserError(f"Circles.radii: the smallest is {radii.min()}; none must be negative")
        frame = checks.frame("Circles.frame", np.eye(2) if frame is None else frame)
        if frame.shape[1] != 2:
            raise UserError(f"Circles.frame.shape = {list(frame.shape)}: must be [D, 2]")
        weights = checks.weights("Circles.weights", weights, len(radii), radii.dtype)
        self._set(radii=radii, weights=weights, frame=frame, event_shape=frame.shape[:1])

    def sample(self, key: Key[Array, ""], num: int) -> Float[Array, "num D"]:
        which, angle = jax.random.split(threefry(key))
        radius = self.radii[jax.random.choice(which, len(self.radii), (num,), p=self.weights)]
        phi = jax.random.uniform(angle, (num,), self.frame.dtype, maxval=2.0 * np.pi)
        plane = radius[:, None] * jnp.stack([jnp.cos(phi), jnp.sin(phi)], axis=-1)
        return jnp.dot(plane, self.frame.T, precision=jax.lax.Precision.HIGHEST)

    def scores(self, projection: InPlane, level: Level, used: Bool[Array, "B T"] | None = None) -> Scores:  # noqa: ARG002
        b2 = (level.b * level.b)[..., None]
        reach = level.a[..., None] * self.radii[None, None]
        # The square root has no derivative at the centre; its argument is kept just above it.
        rho = jnp.sqrt(jnp.maximum(projection.inside2, jnp.finfo(b2.dtype).tiny))[..., None]
        k = reach * rho / b2
        log_p = jnp.log(self.weights)[None, None] - 0.5 * (rho - reach) ** 2 / b2 + bessel.log_i0e(k)
        evidence = jax.nn.logsumexp(log_p, axis=-1)
        volume, offset = self._noise_volume(level, self.dim)
        relative = evidence - 0.5 * projection.perp2 / b2[..., 0] + volume
        omega = jnp.exp(log_p - evidence[..., None])
        mean_scale = omega * self.radii[None, None] * reach / b2 * bessel.ratio_slope(k)
        # On the axis u and D_t both vanish: the first form is regular there, the second where the circle is near.
        residual_scale = jnp.where(
            k < 1.0, 1.0 - reach**2 / b2 * bessel.ratio_slope(k), (rho - reach + reach * bessel.ratio_deficit(k)) / rho
        )
        cache = mean_scale.sum(-1), (omega * residual_scale).sum(-1)
        return Scores(relative, offset - 0.5 * self.dim * LOG_2PI, cache)
