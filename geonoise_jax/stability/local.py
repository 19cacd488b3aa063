r"""The local model near a datum, in closed form: what an exact blind field does without the noise level.

Near one datum of R^D, e = u - x, r = |e|, n = e / r; the density of b under the prior is ~ b^(kappa - 1) at low noise.
Then s = r / b given u is chi-distributed with m = D - kappa degrees of freedom (m = D - d - kappa beside a manifold of
dimension d), whatever the radius:

(L1)  E s^q = 2^(q/2) Gamma((m + q) / 2) / Gamma(m / 2)                   finite iff m + q > 0
(L2)  f*_eps = E[s] n,  f_t,eps = |eps| n                                the blind estimate of |eps| is a constant
(L3)  rms over eps of |E s - |eps|| = sqrt(D - 2 E_m[s] E_D[s] + E_m[s]^2) -> 1 / sqrt(2)
(L4)  transport / natural = -1 / m,  transport / f*_eps = -1 / (m - 1)
(L5)  sd(b) / E(b) given u -> 1 / sqrt(2 m)                               the collapse p(t|u) -> delta_0 is scale-free

With f = c x + d eps, whose size at the radius r = b sqrt(m) is d(t) sqrt(m), the blind velocity is mu r + nu F(r) along
n, F(r) = sqrt(m) d(b^-1(r / sqrt(m))). A small error of the radius grows, as t falls, like

(L6)  exp(-int rho dt),  rho = mu + nu d' / b'

which is what separates the parameterizations: rho = 0 for flow matching, a'/a for both noise and v-prediction on VP
schedules (although mu = 0 for the latter), b'/b for the prediction of x and EqM, whose errors die.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from jaxtyping import ArrayLike as ArrayLike

from geonoise_jax import checks
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import Schedule, as_time
from geonoise_jax.process.times import TimeLaw

_PANELS, _ORDER = 64, 16


def chi_moment(degrees: float, power: float) -> float:
    """Return ``E s^power`` of a chi-distributed s, (L1); infinite where the integral is.

    Args:
        degrees: degrees of freedom m > 0.
        power: q.

    Raises:
        ValueError: if there are no degrees of freedom.
    """
    degrees = checks.real("degrees", degrees, low=0.0, open_low=True)
    if degrees + power <= 0.0:
        return math.inf
    return math.exp(0.5 * power * math.log(2.0) + math.lgamma(0.5 * (degrees + power)) - math.lgamma(0.5 * degrees))


def blind_error_rms(dim: int, exponent: float = 1.0) -> float:
    """Return the rms over eps of the error of the exact blind noise on the trajectory, (L3), in units of eps.

    Args:
        dim: dimension D.
        exponent: kappa of the prior, see :func:`noise_exponent`.

    Raises:
        ValueError: if ``m = D - kappa`` is not positive: there the posterior does not settle on the datum.
    """
    blind, true = chi_moment(dim - exponent, 1.0), chi_moment(dim, 1.0)
    return math.sqrt(max(dim - 2.0 * blind * true + blind**2, 0.0))


def transport_share(dim: int, exponent: float = 1.0) -> float:
    """Return the size of the transport correction relative to the blind noise near a datum, (L4): ``1 / (m - 1)``.

    Raises:
        ValueError: if m is not above 1: there natural gradient and transport both diverge.
    """
    degrees = checks.real("dim - exponent", dim - exponent, low=1.0, open_low=True)
    return 1.0 / (degrees - 1.0)


def posterior_width(dim: int, exponent: float = 1.0) -> float:
    """Return ``sd(b) / E(b)`` given u near a datum; (L5) is its limit for large m.

    With b = r / s its moments are those of s to negative powers; infinite for m <= 2.

    Raises:
        ValueError: if ``m = D - kappa`` is not positive.
    """
    mean, square = (chi_moment(dim - exponent, power) for power in (-1.0, -2.0))
    return math.sqrt(square / mean**2 - 1.0) if math.isfinite(square) else math.inf


def level_bias(degrees: float) -> float:
    """Return ``E sigma_hat / sigma`` of ``sigma_hat = r / sqrt(m')``, whose square is unbiased: always below 1.

    Args:
        degrees: ``m' = D - d``, the directions in which the noise leaves the data.

    Raises:
        ValueError: if there are none.
    """
    return chi_moment(degrees, 1.0) / math.sqrt(degrees)


def noise_exponent(schedule: Schedule, time_law: TimeLaw, t: Float[ArrayLike, "*t"]) -> Float[Array, "*t"]:
    """Return the exponent kappa of the prior of b around b(t): its density is ~ ``b^(kappa - 1)`` there.

    Of a uniform law it is 1 at low noise where b ~ t (flow matching, VE), 2 where b ~ sqrt(t) (VP); 0 of a law that is
    uniform in log b.

    Args:
        schedule: a(t), b(t).
        time_law: density of t.
        t: times inside its range, of a law that has a density.
    """

    def logs(t: Array) -> tuple[Array, Array]:
        _, b, _, db = schedule.coeffs(t)
        return time_law.log_density(t) - jnp.log(db), jnp.log(b)

    times = as_time(t)
    _, (density, noise) = jax.jvp(logs, (times,), (jnp.ones_like(times),))
    return 1.0 + density / noise


def radial_rate(process: Process, t: Float[ArrayLike, "*t"]) -> Float[Array, "*t"]:
    """Return ``rho = mu + nu d' / b'``, the rate per unit t of a small radial error of the exact blind field, (L6)."""

    def scale(t: Array) -> Array:
        return process.coeffs(t).d

    times = as_time(t)
    mu, nu = process.velocity_coeffs(times)
    _, slope = jax.jvp(scale, (times,), (jnp.ones_like(times),))
    return mu + nu * slope / process.coeffs(times).db


def drift_factor(process: Process, start: float, stop: float) -> Float[Array, ""]:
    """Return ``exp(-int mu dt)`` from ``start`` down to ``stop``: the part of (L6) that is the drift's, eq. (63)."""
    return _factor(process, start, stop, blind=False)


def radial_factor(process: Process, start: float, stop: float) -> Float[Array, ""]:
    """Return what a small error of the radius is multiplied by from ``start`` down to ``stop``, (L6).

    Args:
        process: schedule and target.
        start: time at which the error is made.
        stop: a smaller time.

    Raises:
        ValueError: unless ``t_min <= stop < start <= t_max``.
    """
    return _factor(process, start, stop, blind=True)


def _factor(process: Process, start: float, stop: float, *, blind: bool) -> Float[Array, ""]:
    schedule = process.schedule
    start = checks.real("start", start, low=schedule.t_min, high=schedule.t_max)
    stop = checks.real("stop", stop, low=schedule.t_min, high=start, open_high=True)
    # In log(b / a), along which rates like b'/b are even.
    low, high = schedule.eta(as_time(stop)), schedule.eta(as_time(start))
    x, w = np.polynomial.legendre.leggauss(_ORDER)
    fractions = (np.arange(_PANELS)[:, None] + 0.5 * (x + 1.0)) / _PANELS
    eta = low + (high - low) * jnp.asarray(fractions.ravel(), low.dtype)
    times = jnp.clip(schedule.t_of_eta(eta), stop, start)
    a, b, da, db = schedule.coeffs(times)
    rate = radial_rate(process, times) if blind else process.velocity_coeffs(times)[0]
    weights = jnp.asarray(np.tile(0.5 * w / _PANELS, _PANELS), low.dtype) * (high - low)
    return jnp.exp(-(weights * rate / (db / b - da / a)).sum())
