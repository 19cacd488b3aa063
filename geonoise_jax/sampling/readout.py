r"""Reading the noise level off an observation: from the exact posterior, or from the residual of a blind field.

A field's value r at u says what the noise would be at every t, eps(u, r, t) of (62). True noise has the norm

(1)  |eps(u, r, t)|^2 = D     to within D (1 +- sqrt(2 / D)),

whose root t_hat is the residual's noise level; for the Signal target on VE it is |u - r| / sqrt(D). With u and r of the
true level t_0, eps(u, r, t) = A eps + B x, where

(2)  A(t, t_0) = (a(t) d(t_0) - c(t) b(t_0)) / (a d - b c)(t),     A(t, t) = 1,

so that |eps(u, r, t)|^2 >= A^2 D, eps being orthogonal to x. If |A| > 1 at all t < t_0, then t_0 is the first root as t
grows, whatever the data; if |A| > 1 at all t > t_0, it is the first as t shrinks. Otherwise the level cannot be told:
for the noise itself A = 1, and for v-prediction on schedules with a^2 + b^2 = 1 |A| <= 1 everywhere. Where A = t_0 / t
(Signal or Score on VE, EqM), t_hat has the standard deviation t / sqrt(2 D). For the velocity of flow matching
A = 1 + t_0 - t, so that t_hat is uncertain by 1 / sqrt(2 D) however small t is.

The exact posterior does better where the signal fades too: on Linear, t / sqrt(2 D + |x|^2).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from geonoise_jax.errors import UserError
from geonoise_jax.fields import Field
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import Schedule
from geonoise_jax.sampling.blind import check_blind, evaluate_blind, root_mean_square

_PROBES = 128
_MARGIN = 1e-9
_NODES = 128
_ETA_LIMIT = 20.0
_BISECTIONS = 26


@runtime_checkable
class ExactPosterior(Protocol):
    """What :func:`posterior_mode` needs of ``exact.marginal.Marginal``."""

    def posterior(self, u: Float[Array, "b *event"]) -> Any:
        """Return the posterior of the noise level, with its ``mode``, [b]."""


def posterior_mode(marginal: ExactPosterior, u: Float[Array, "b *event"]) -> Float[Array, "b"]:
    """Return the time of largest posterior density p(t | u), equation (36)."""
    return marginal.posterior(u).mode


def residual_level(field: Field, u: Float[Array, "b *event"]) -> Float[Array, "b"]:
    """Return the noise level at which one evaluation of a blind field explains u, equation (1).

    Args:
        field: a blind Field.
        u: observations of unknown noise level.

    Returns:
        Times in [t_min, t_max]; the end of the range where the residual lies beyond it.

    Raises:
        ValueError: if the field needs t, or its residual does not tell the level, equation (2).
    """
    check_blind(field)
    check_readable(field.process)
    return level_of_residual(field.process, u, evaluate_blind(field, u))


def implicit_schedule(
    model: Field | ExactPosterior, trajectory: Float[Array, "times b *event"]
) -> Float[Array, "times b"]:
    """Return the noise level read at every point of a trajectory.

    Args:
        model: an exact marginal, read by :func:`posterior_mode`, or a blind Field, by :func:`residual_level`.
        trajectory: observations that a sampler passed through.

    Raises:
        ValueError: as :func:`residual_level`.
    """
    if isinstance(model, ExactPosterior):
        return jax.lax.map(functools.partial(posterior_mode, model), trajectory)
    return jax.lax.map(functools.partial(residual_level, model), trajectory)


def level_of_residual(process: Process, u: Float[Array, "b *event"], r: Float[Array, "b *event"]) -> Float[Array, "b"]:
    """Return the root of equation (1) for given values r of the target.

    Data longer than the noise make a second root beyond the first, which is the one returned; two roots closer than
    1 / 128 of the range of log(b / a) may be missed. Without a root the last time of the scan is returned: t_max for
    EqM. That is the case, too, where r = 0 at a datum with a root mean square above 1.

    Raises:
        ValueError: if r does not tell the level, equation (2).
    """

    def too_long(t: Float[Array, "b"]) -> Bool[Array, "b"]:
        return root_mean_square(process.recover(u, r, t)[1]) > 1.0

    return _first_root(process, too_long, (len(u),), u.dtype)


def level_of_products(process: Process, products: Float[Array, "3 *b"]) -> Float[Array, "*b"]:
    """Return the root of equation (1) from the means of (u^2, u r, r^2) over the entries of an event.

    They are all that (1) depends on, ``|eps|^2 / D = (a^2 <r^2> - 2 a c <u r> + c^2 <u^2>) / (a d - b c)^2``, but where
    u and c / a r nearly cancel, as for the Signal target near the data, :func:`level_of_residual` keeps more digits.

    Returns:
        Times, as of :func:`level_of_residual`; NaN where a product is.

    Raises:
        ValueError: if r does not tell the level, equation (2).
    """
    uu, ur, rr = products

    def too_long(t: Float[Array, "*b"]) -> Bool[Array, "*b"]:
        k = process.coeffs(t)
        return k.a**2 * rr - 2.0 * k.a * k.c * ur + k.c**2 * uu > k.det**2

    return jnp.where(jnp.isnan(products).any(axis=0), jnp.nan, _first_root(process, too_long, uu.shape, uu.dtype))


def _first_root(
    process: Process, too_long: Callable[[Float[Array, "*b"]], Bool[Array, "*b"]], shape: tuple[int, ...], dtype: Any
) -> Float[Array, "*b"]:
    """Return the first time, from the end where the noise would be too long, at which it no longer is."""
    shrinking, schedule = check_readable(process), process.schedule
    low, high = _eta_range(schedule, dtype)
    first, last = (high, low) if shrinking else (low, high)

    def long(eta: Float[Array, "*b"]) -> Bool[Array, "*b"]:
        return too_long(_time(schedule, jnp.broadcast_to(eta, shape)))

    # A scan of the nodes, then bisection.
    nodes = jnp.linspace(first, last, _NODES)
    beyond = jax.lax.map(long, nodes)
    index = jnp.where(beyond.all(axis=0), _NODES - 1, jnp.argmin(beyond, axis=0))
    bracket = nodes[jnp.maximum(index - 1, 0)], nodes[index]

    def halve(_: Array, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = 0.5 * (bracket[0] + bracket[1])
        outside = long(middle)
        return jnp.where(outside, middle, bracket[0]), jnp.where(outside, bracket[1], middle)

    return _time(schedule, jax.lax.fori_loop(0, _BISECTIONS, halve, bracket)[1])


def check_readable(process: Process) -> bool:
    """Return whether the level is the first root as t shrinks, rather than as t grows, equation (2).

    Raises:
        ValueError: if it is neither.
    """
    growing, shrinking = _directions(process)
    if not growing and not shrinking:
        raise UserError(
            f"{process}: the length of the noise that explains a value of the field does not tell t, so that the level "
            "cannot be read off a residual; give t, or use another target (Signal, Equilibrium)"
        )
    return shrinking


def tells_level(process: Process) -> bool:
    """Return whether the residual of a blind field of this process tells the noise level, equation (2)."""
    return any(_directions(process))


@functools.lru_cache(maxsize=256)
def _directions(process: Process) -> tuple[bool, bool]:
    """Return whether the level is the first root as t grows, and whether it is as t shrinks."""
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        low, high = _eta_range(process.schedule, jnp.float64)
        k = process.coeffs(_time(process.schedule, jnp.linspace(low, high, _PROBES)))
        longer = jnp.abs(k.a[:, None] * k.d[None] - k.c[:, None] * k.b[None]) / jnp.abs(k.det)[:, None] > 1.0 + _MARGIN
        before = np.tri(_PROBES, k=-1, dtype=bool).T
        return bool(longer[before].all()), bool(longer[before.T].all())


def _eta_range(schedule: Schedule, dtype: Any) -> Float[Array, "2"]:
    """Return eta at t_min and t_max, finite also where a or b is 0."""
    return jnp.clip(schedule.eta(jnp.asarray([schedule.t_min, schedule.t_max], dtype)), -_ETA_LIMIT, _ETA_LIMIT)


def _time(schedule: Schedule, eta: Float[Array, "*eta"]) -> Float[Array, "*eta"]:
    return jnp.clip(schedule.t_of_eta(eta), schedule.t_min, schedule.t_max)
