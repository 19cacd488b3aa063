r"""A process: one schedule and one target, and every coefficient that follows from the two.

Derivation (numbers of "The Geometry of Noise", arXiv:2602.18428):

(2, 4)    u = a x + b eps,  r = c x + d eps;   Delta = a d - b c
(61, 62)  x = (d u - b r) / Delta,  eps = (a r - c u) / Delta             the 2x2 solve, held by :meth:`Process.recover`
(63)      du/dt = da x + db eps = mu u + nu r,
          mu = (da d - db c) / Delta,  nu = (a db - da b) / Delta
(15)      lambda = (b / a) Delta                                          gain of the natural-gradient term
(51, 52)  c / a                                                           scale of the drift term
step      u_s = a_s x + b_s eps = kappa u_t + omega r_t,
          kappa = (a_s d_t - b_s c_t) / Delta_t,  omega = (a_t b_s - a_s b_t) / Delta_t

Nothing here is tabulated per pair of parameterizations: each conversion is this solve.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from jaxtyping import ArrayLike as ArrayLike

from geonoise_jax import checks
from geonoise_jax.checks import refused
from geonoise_jax.errors import UserError
from geonoise_jax.process.schedules import Schedule, as_time
from geonoise_jax.process.targets import Target

_SINGULAR = 1e-12
_PROBES = 1024
_NEGLIGIBLE_SIGNAL = 0.1


class Coeffs(NamedTuple):
    """All primary coefficients of a process at t (each of the shape of t)."""

    a: Float[Array, "*t"]
    b: Float[Array, "*t"]
    da: Float[Array, "*t"]
    db: Float[Array, "*t"]
    c: Float[Array, "*t"]
    d: Float[Array, "*t"]

    @property
    def det(self) -> Float[Array, "*t"]:
        """Determinant ``a d - b c`` of the map (x, eps) -> (u, r)."""
        return self.a * self.d - self.b * self.c


def expand(coefficient: Float[Array, "*t"], like: Float[Array, "*t *event"]) -> Float[Array, "..."]:
    """Append unit axes so that a per-sample coefficient multiplies a batch of events."""
    return coefficient.reshape(coefficient.shape + (1,) * (like.ndim - coefficient.ndim))


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class Process:
    """A schedule with a target, ``Process(schedule, target)``.

    In every method t has shape [B] (or is a scalar) and leads the axes of u, x, eps, r: [B, *event].

    Attributes:
        schedule: the pair a(t), b(t).
        parameterization: the target that it was made with, the pair c(t), d(t). ``target`` is the name of a method, the
            value of the target for given x and eps.
    """

    schedule: Schedule
    parameterization: Target

    def __init__(self, schedule: Schedule, target: Target) -> None:
        """Pair a schedule with a target.

        Raises:
            ValueError: if (x, eps) cannot be recovered from (u, r) somewhere on [t_min, t_max], or if the velocity
                coefficients are infinite there.
        """
        if not isinstance(schedule, Schedule):
            raise refused("Process.schedule", schedule, "a Schedule, such as Linear()")
        if not isinstance(target, Target):
            raise refused("Process.target", target, "a Target, such as Velocity()")
        problem = _singularity(schedule, target)
        if problem:
            raise UserError(f"Process({schedule}, {target}) is singular: {problem}")
        object.__setattr__(self, "schedule", schedule)
        object.__setattr__(self, "parameterization", target)

    def __repr__(self) -> str:
        """Return the call that makes the process."""
        return f"Process({self.schedule!r}, {self.parameterization!r})"

    def coeffs(self, t: ArrayLike) -> Coeffs:
        """Return ``(a, b, da, db, c, d)`` at t."""
        return _coeffs(self.schedule, self.parameterization, as_time(t))

    def corrupt(
        self, x: Float[Array, "*t *event"], eps: Float[Array, "*t *event"], t: ArrayLike
    ) -> Float[Array, "*t *event"]:
        """Return the observation ``u = a x + b eps``, equation (2)."""
        k = self.coeffs(t)
        return expand(k.a, x) * x + expand(k.b, x) * eps

    def target(
        self, x: Float[Array, "*t *event"], eps: Float[Array, "*t *event"], t: ArrayLike
    ) -> Float[Array, "*t *event"]:
        """Return the regression target ``r = c x + d eps``, equation (4)."""
        k = self.coeffs(t)
        return expand(k.c, x) * x + expand(k.d, x) * eps

    def recover(
        self, u: Float[Array, "*t *event"], r: Float[Array, "*t *event"], t: ArrayLike
    ) -> tuple[Float[Array, "*t *event"], Float[Array, "*t *event"]]:
        """Return ``(x, eps)`` from the observation and the target, equations (61, 62)."""
        k = self.coeffs(t)
        x = expand(k.d / k.det, u) * u - expand(k.b / k.det, u) * r
        eps = expand(k.a / k.det, u) * r - expand(k.c / k.det, u) * u
        return x, eps

    def velocity_coeffs(self, t: ArrayLike) -> tuple[Float[Array, "*t"], Float[Array, "*t"]]:
        """Return ``(mu, nu)`` of ``du/dt = mu u + nu r``, equation (63)."""
        k = self.coeffs(t)
        return (k.da * k.d - k.db * k.c) / k.det, (k.a * k.db - k.da * k.b) / k.det

    def velocity(
        self, u: Float[Array, "*t *event"], r: Float[Array, "*t *event"], t: ArrayLike
    ) -> Float[Array, "*t *event"]:
        """Return the sampling velocity ``du/dt = mu u + nu r``, equations (19, 63)."""
        mu, nu = self.velocity_coeffs(t)
        return expand(mu, u) * u + expand(nu, u) * r

    def gain(self, t: ArrayLike) -> Float[Array, "*t"]:
        """Return ``lambda = (b / a)(a d - b c)``, equation (15); infinite where a = 0."""
        k = self.coeffs(t)
        return k.b / k.a * k.det

    def drift_scale(self, t: ArrayLike) -> Float[Array, "*t"]:
        """Return ``c / a``, equations (51, 52); infinite where a = 0 and c is not."""
        k = self.coeffs(t)
        return k.c / k.a

    def step(self, s: ArrayLike, t: ArrayLike) -> tuple[Float[Array, "*t"], Float[Array, "*t"]]:
        """Return ``(kappa, omega)`` of the step ``u_s = kappa u_t + omega r_t`` from t to s.

        Exact when x and eps are held constant over the step; it is DDIM for the noise target and flow matching's Euler
        step for the velocity of the Linear schedule.
        """
        a_s, b_s, _, _ = self.schedule.coeffs(s)
        k = self.coeffs(t)
        return (a_s * k.d - b_s * k.c) / k.det, (k.a * b_s - a_s * k.b) / k.det

    def start(
        self,
        key: Key[Array, ""],
        shape: tuple[int, ...],
        x: Float[Array, "*shape"] | None = None,
        *,
        noise: Float[Array, "*shape"] | None = None,
    ) -> Float[Array, "*shape"]:
        """Draw observations at t_max, where sampling starts: ``a x + b eps``.

        Args:
            key: PRNG key of the noise.
            shape: [B, *event].
            x: data to be noised, [B, *event]; may be left out where a(t_max) is negligible beside b(t_max).
            noise: eps, [B, *event], in place of draws with the key.

        Raises:
            ValueError: if x is left out although ``a / b > 0.1`` at t_max, or x or the noise has another shape.
        """
        k = self.coeffs(jnp.asarray(self.schedule.t_max, jnp.result_type(float)))
        if noise is None:
            noise = jax.random.normal(key, shape, k.b.dtype)
        checks.shape("noise", noise, shape)
        if x is None:
            check_start(self.schedule)
            return k.b * noise
        checks.shape("x", x, shape)
        return k.a * x + k.b * noise


def check_start(schedule: Schedule) -> None:
    """Require that pure noise is a fair start for sampling.

    Raises:
        ValueError: if the signal left at t_max is more than a tenth of the noise.
    """
    with jax.ensure_compile_time_eval():
        a, b = (float(scale) for scale in schedule.scales(as_time(schedule.t_max)))
    if a > _NEGLIGIBLE_SIGNAL * b:
        raise UserError(
            f"{type(schedule).__name__}.t_max = {schedule.t_max}: a = {a:.3g} is not negligible beside b = {b:.3g}, so "
            f"samples cannot start from noise alone; raise t_max until a / b <= {_NEGLIGIBLE_SIGNAL}, or give "
            "the data x to be noised"
        )


def _coeffs(schedule: Schedule, target: Target, t: Float[Array, "*t"]) -> Coeffs:
    schedule_coeffs = schedule.coeffs(t)
    return Coeffs(*schedule_coeffs, *target.coeffs(schedule_coeffs, t))


@functools.lru_cache(maxsize=256)
def _singularity(schedule: Schedule, target: Target) -> str:
    """Describe where a process is singular on [t_min, t_max], or return an empty string."""
    low, high = schedule.t_min, schedule.t_max
    t = np.linspace(low, high, _PROBES)
    # Probed eagerly and in float64, also when a process is built inside a trace of a float32 program.
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        k = _coeffs(schedule, target, jnp.asarray(t, jnp.float64))
        finite = np.asarray(jnp.isfinite(jnp.stack(k)).all(axis=0))
        size = np.asarray(jnp.hypot(k.a, k.b) * jnp.hypot(k.c, k.d))
        det = np.asarray(k.det)
    if not finite.all():
        where = t[finite.argmin()]
        return f"coefficients are infinite at t = {where:g}; {_advice(where, low, high)}"
    zero = np.abs(det) <= _SINGULAR * size
    zero[1:] |= np.sign(det[1:]) * np.sign(det[:-1]) < 0
    if zero.any():
        where = t[zero.argmax()]
        return (
            f"a d - b c vanishes at t = {where:g}, where u and the target no longer determine x and eps; "
            f"{_advice(where, low, high)}"
        )
    return ""


def _advice(where: float, low: float, high: float) -> str:
    if where == low:
        return f"choose t_min > {low:g} or another target"
    if where == high:
        return f"choose t_max < {high:g} or another target"
    return "choose another target or a range of t without this point"
