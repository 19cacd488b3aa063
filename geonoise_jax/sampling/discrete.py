r"""Samplers that step from one noise level to the next in closed form, whatever the schedule and the target.

All stand on the one discrete step of ``Process.step``, u_s = a_s x + b_s eps with (x, eps) recovered from (u_t, f):

(D1)  u_s = kappa u_t + omega f                                      DDIM (Song, Meng & Ermon 2021)
(D2)  u_s = a_s x + b_s (sqrt(1 - w) eps + sqrt(w) z)                a part w of the noise that is left at s exchanged
                                                                     for fresh noise z; their equation 16 with
      w = eta^2 (1 - rho^2),                                         sigma^2 = w b_s^2, for a general schedule; eta
      rho = (a_t b_s) / (a_s b_t) < 1                                is their name of the stochasticity, in [0, 1]
(D3)  u_s = (D1) + a_s (1 - rho) h / (2 h') (x_t - x_t')             DPM-Solver++(2M) (Lu et al. 2022), h = -log rho;
                                                                     the primes mark the step before
(D4)  sigma^2 = b_t^2 - (a_t / a_s)^2 b_s^2 = b_t^2 (1 - rho^2)      DDPM's larger variance of z in (D2), for
                                                                     eta = 1: that of the forward kernel, beta

At eta = 1, (D2) draws from the Gaussian posterior of u_s given u_t and x: DDPM's ancestral sampling. However
long the step, the noise that (D2) leaves is of the size that the observation has at s; that of (D4) is not.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from geonoise_jax import checks
from geonoise_jax.errors import UserError
from geonoise_jax.fields import Field
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import Schedule
from geonoise_jax.sampling import stepping
from geonoise_jax.sampling.stepping import Interval, evaluate, march

VARIANCES = ("fixed_small", "fixed_large")


def ddim(
    field: Field,
    u: Float[Array, "b *event"],
    times: Float[Array, "times"],
    keys: Key[Array, "b"] | None = None,
    *,
    eta: float = 0.0,
    clip: float = math.inf,
) -> Float[Array, "b *event"]:
    """Sample by the discrete step: (D1), first order, or with fresh noise (D2), of weak order one.

    Without noise it is Euler's method for flow matching on the Linear schedule, and for u / a in sigma = b / a on every
    schedule. One field evaluation a step.

    Args:
        field: any Field.
        u: observations at ``times[0]``.
        times: grid, ``steps + 1`` decreasing times.
        keys: one PRNG key a sample; not needed if eta is 0.
        eta: stochasticity: 0 is deterministic, 1 is :func:`ancestral` sampling.
        clip: the estimate of x is clipped to [-clip, clip] in every step, and eps recomputed from it and u, as in the
            released code of DDPM, improved DDPM and DDIM, with 1 for pixels in [-1, 1]. Infinity: it is not.

    Returns:
        Observations at ``times[-1]``.

    Raises:
        ValueError: if eta lies outside [0, 1], or is positive without keys, or clip is not positive.
    """
    checks.real("eta", eta, low=0.0, high=1.0)
    if eta == 0.0 and clip == math.inf:
        return march(lambda u, at: ddim_step(field, u, at.t, at.s), u, times.astype(u.dtype))
    return _exchanging(field, u, times, keys, eta=eta, clip=clip)


def ancestral(
    field: Field,
    u: Float[Array, "b *event"],
    times: Float[Array, "times"],
    keys: Key[Array, "b"],
    *,
    variance: str = "fixed_small",
    clip: float = math.inf,
) -> Float[Array, "b *event"]:
    """Sample from the Gaussian posterior of each step given x (Ho et al. 2020): :func:`ddim` with eta = 1.

    DDPM's setting for CIFAR-10 is 1000 steps with ``variance="fixed_large", clip=1``. Its last step, from the first
    noise level to none, is the estimate of x without noise, so that it is ``num_steps=999, denoise=True`` of
    :func:`geonoise_jax.sampling.sample` on the uniform grid of ``VPDiscrete``.

    Args:
        field, u, times, keys, clip: as for :func:`ddim`.
        variance: ``"fixed_small"``, that of the posterior, which is right for data of one point; or ``"fixed_large"``,
            equation (D4), that of the forward kernel, right for data that are standard normal. They agree as steps get
            short. (D4) is meant for short steps: a long one from t leaves noise of size b(t), too much for s.

    Returns:
        Observations at ``times[-1]``.

    Raises:
        ValueError: if the variance is unknown or clip is not positive.
    """
    checks.choice("variance", variance, VARIANCES)
    return _exchanging(field, u, times, keys, clip=clip, large=variance == "fixed_large")


def _exchanging(
    field: Field,
    u: Float[Array, "b *event"],
    times: Float[Array, "times"],
    keys: Key[Array, "b"] | None,
    *,
    eta: float = 1.0,
    clip: float,
    large: bool = False,
) -> Float[Array, "b *event"]:
    """March by (D2), or with the variance (D4) if ``large``, from estimates of x that are clipped."""
    checks.real("clip", clip, low=0.0, open_low=True, infinite=True)
    if eta > 0.0 and keys is None:
        raise UserError(f"keys = None: must be given with eta = {eta}")
    process = field.process

    def step(u: Float[Array, "b *event"], at: Interval) -> Float[Array, "b *event"]:
        r = evaluate(field, u, at.t)
        (a, b), (a_s, b_s) = process.schedule.scales(at.t), process.schedule.scales(at.s)
        x, eps = process.recover(u, r, at.t)
        moved = held_step(process, u, r, at.t, at.s)
        if clip != math.inf:
            x = jnp.clip(x, -clip, clip)
            eps = (u - a * x) / b
            moved = a_s * x + b_s * eps
        if keys is None or eta == 0.0:
            return moved
        w = -(eta**2) * jnp.expm1(-2.0 * log_snr_gap(process.schedule, at))
        z = stepping.fresh_noise(keys, at.number, u)
        return moved + b_s * kept_less(w) * eps + (b if large else b_s) * jnp.sqrt(w) * z

    return march(step, u, times.astype(u.dtype))


def kept_less(w: Float[Array, ""]) -> Float[Array, ""]:
    """Return ``sqrt(1 - w) - 1`` without its cancellation: w is small on a fine grid."""
    return -w / (1.0 + jnp.sqrt(1.0 - w))


def ddim_step(
    field: Field, u: Float[Array, "b *event"], t: Float[Array, ""], s: Float[Array, ""]
) -> Float[Array, "b *event"]:
    """Return ``kappa u + omega f``, equation (D1)."""
    return held_step(field.process, u, evaluate(field, u, t), t, s)


def held_step(
    process: Process, u: Float[Array, "b *event"], r: Float[Array, "b *event"], t: Float[Array, ""], s: Float[Array, ""]
) -> Float[Array, "b *event"]:
    """Return the observation at s of the x and eps that (u, r) stand for at t, equation (D1)."""
    kappa, omega = process.step(s, t)
    return kappa * u + omega * r


def dpmpp_2m(
    field: Field, u: Float[Array, "b *event"], times: Float[Array, "times"], *, lower_order_final: bool = True
) -> Float[Array, "b *event"]:
    """Sample by DPM-Solver++(2M), (D3): second order in the log-SNR, one field evaluation a step.

    Best on the ``log_snr`` grid. A step next to one of infinite length (a or b vanishes at an end) is of first order.

    Args:
        field: any Field.
        u: observations at ``times[0]``.
        times: grid, ``steps + 1`` decreasing times.
        lower_order_final: make the last step of first order, which is steadier with few steps.

    Returns:
        Observations at ``times[-1]``.

    Raises:
        ValueError: if lower_order_final is no truth value.
    """
    checks.truth("lower_order_final", lower_order_final)
    process, last = field.process, len(times) - 2
    # (u, x of the step before, length of the step before); an infinite length makes the first step one of first order.
    state = (u, jnp.zeros_like(u), jnp.full((), jnp.inf, u.dtype))

    def step(state: tuple[Array, Array, Array], at: Interval) -> tuple[Array, Array, Array]:
        u, x_before, h_before = state
        r = evaluate(field, u, at.t)
        x, _ = process.recover(u, r, at.t)
        a_s, _ = process.schedule.scales(at.s)
        h = log_snr_gap(process.schedule, at)
        slope = jnp.where(jnp.isinf(h) | (lower_order_final & (at.number == last)), 0.0, 0.5 * h / h_before)
        correction = -a_s * jnp.expm1(-h) * slope * (x - x_before)
        return held_step(process, u, r, at.t, at.s) + correction, x, h

    return march(step, state, times.astype(u.dtype))[0]


def log_snr_gap(schedule: Schedule, at: Interval) -> Float[Array, ""]:
    """Return ``h = -log rho = log(b_t / a_t) - log(b_s / a_s) > 0``, half the gain in log-SNR over a step."""
    return schedule.eta(at.t) - schedule.eta(at.s)
