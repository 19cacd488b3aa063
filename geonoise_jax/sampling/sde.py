r"""Stochastic samplers beside ancestral sampling, for every schedule and target.

With sigma = b / a, eta = log sigma and the score grad log p_t(u) = -eps(u) / b, eps(u) being recovered from the field:

(S1)  du = a'/a u dt + g dw,  g^2 = 2 b^2 d eta/dt                       the forward SDE (Song et al. 2021)
(S2)  du = [velocity + (w / 2b) eps] dt + sqrt(w) dw,  t decreasing      same marginals for every w(t) >= 0:
                                                                         w = g^2 is the reverse of (S1), w = 0 the ODE
(S3)  u <- u + step score + sqrt(2 step) z                               Langevin dynamics at a fixed time

(S2) with a free w is the SDE of stochastic interpolants (Albergo, Boffi & Vanden-Eijnden 2023). What w does in a step
from t to s is to replace a part of the noise by fresh noise, which has a closed form for steps of any length:

(S4)  b eps <- e^-delta b eps + b sqrt(1 - e^-2delta) z,   delta = int_s^t w / 2b^2

where delta = eta(t) - eta(s) for w = g^2, and log(b(t) / b(s)) for w = d(b^2)/dt.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from geonoise_jax.fields import Field
from geonoise_jax.process.schedules import Schedule
from geonoise_jax.sampling import checks, stepping
from geonoise_jax.sampling.discrete import held_step, log_snr_gap
from geonoise_jax.sampling.stepping import Interval, evaluate, march

DIFFUSIONS = ("reverse", "interpolant")
_MAX_CHURN = math.sqrt(2.0) - 1.0


def edm_churn(
    field: Field,
    u: Float[Array, "b *event"],
    times: Float[Array, "times"],
    keys: Key[Array, "b"],
    *,
    s_churn: float = 40.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Float[Array, "b *event"]:
    """Sample by Algorithm 2 of Karras et al. (2022): raise the noise level, then a Heun step; two evaluations a step.

    The Heun step is taken for ``u / a`` in sigma = b / a, as theirs is, whatever the schedule; without churn this is
    :func:`~geonoise_jax.sampling.ode.heun` on the VE schedule exactly, and the same second-order ODE solution in
    another variable on every other. The level is never raised beyond the schedule's ``t_max``, where the field is
    not defined.

    Args:
        field: any Field.
        u: observations at ``times[0]``.
        times: grid, ``steps + 1`` decreasing times.
        keys: one PRNG key a sample.
        s_churn: total stochasticity: each step raises sigma by the factor ``1 + min(s_churn / steps, sqrt(2) - 1)``.
        s_tmin: smallest sigma that is raised.
        s_tmax: largest sigma that is raised.
        s_noise: standard deviation of the fresh noise.

    Returns:
        Observations at ``times[-1]``.

    Raises:
        ValueError: if an option is negative.
    """
    for name, value in {"s_churn": s_churn, "s_tmin": s_tmin, "s_tmax": s_tmax, "s_noise": s_noise}.items():
        checks.real(name, value, infinite=name == "s_tmax")
    process = field.process
    rise = math.log1p(min(s_churn / (len(times) - 1), _MAX_CHURN))

    def step(u: Float[Array, "b *event"], at: Interval) -> Float[Array, "b *event"]:
        t = at.t
        if rise > 0.0:
            t, ratio, scale = _raised(process.schedule, at.t, rise, s_tmin, s_tmax)
            u = ratio * u + s_noise * scale * stepping.fresh_noise(keys, at.number, u)
        r = evaluate(field, u, t)
        predicted = held_step(process, u, r, t, at.s)
        _, eps = process.recover(u, r, t)
        _, eps_predicted = process.recover(predicted, evaluate(field, predicted, at.s), at.s)
        a_s, b_s = process.schedule.scales(at.s)
        a, b = process.schedule.scales(t)
        # a_s (sigma_s - sigma) / 2 is infinite where a = 0; a first step from there is left at first order.
        half = jnp.where(a > 0.0, 0.5 * (b_s - a_s * b / a), 0.0)
        return predicted + half * (eps_predicted - eps)

    return march(step, u, times.astype(u.dtype))[0]


def _raised(
    schedule: Schedule, t: Float[Array, ""], rise: float, sigma_min: float, sigma_max: float
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """Return the raised time, and the factors of u and of fresh noise that take the observation there."""
    eta = schedule.eta(t)
    t_max = jnp.asarray(schedule.t_max, t.dtype)
    target = jnp.minimum(eta + rise, schedule.eta(t_max))
    sigma = jnp.exp(eta)
    raises = (target > eta) & (sigma_min <= sigma) & (sigma <= sigma_max)
    raised = jnp.where(raises, jnp.minimum(schedule.t_of_eta(target), t_max), t)
    (a, _), (a_raised, b_raised) = schedule.scales(t), schedule.scales(raised)
    scale = b_raised * jnp.sqrt(-jnp.expm1(2.0 * (eta - target)))
    return raised, jnp.where(raises, a_raised / a, 1.0), jnp.where(raises, scale, 0.0)


def reverse_sde(
    field: Field,
    u: Float[Array, "b *event"],
    times: Float[Array, "times"],
    keys: Key[Array, "b"],
    *,
    noise: float = 1.0,
    diffusion: str = "reverse",
) -> Float[Array, "b *event"]:
    """Integrate the SDE (S2) by a step of Euler for the velocity and (S4) for the rest, both from one field evaluation.

    Weak order one, as Euler-Maruyama, with which it agrees for short steps; but (S4) cannot overshoot where a step is
    long in delta, as the first ones are of a uniform grid that starts where a vanishes.

    Args:
        field: any Field.
        u: observations at ``times[0]``.
        times: grid, ``steps + 1`` decreasing times.
        keys: one PRNG key a sample.
        noise: factor of sqrt(w): 0 is :func:`~geonoise_jax.sampling.ode.euler`, 1 the full w.
        diffusion: ``"reverse"``, w = g^2; or ``"interpolant"``, w = d(b^2)/dt, which is less where a is small. They
            agree on VE.

    Returns:
        Observations at ``times[-1]``.

    Raises:
        ValueError: if noise is negative or the diffusion is unknown.
    """
    checks.real("noise", noise)
    checks.choice("diffusion", diffusion, DIFFUSIONS)
    process = field.process

    def step(u: Float[Array, "b *event"], at: Interval) -> Float[Array, "b *event"]:
        r = evaluate(field, u, at.t)
        moved = u + (at.s - at.t) * process.velocity(u, r, at.t)
        if noise == 0.0:
            return moved
        _, eps = process.recover(u, r, at.t)
        b, b_s = process.schedule.scales(at.t)[1], process.schedule.scales(at.s)[1]
        gap = log_snr_gap(process.schedule, at) if diffusion == "reverse" else jnp.log(b / b_s)
        delta = noise**2 * gap
        fresh = jnp.sqrt(-jnp.expm1(-2.0 * delta)) * stepping.fresh_noise(keys, at.number, u)
        return moved + b * (jnp.expm1(-delta) * eps + fresh)

    return march(step, u, times.astype(u.dtype))[0]


def predictor_corrector(
    field: Field,
    u: Float[Array, "b *event"],
    times: Float[Array, "times"],
    keys: Key[Array, "b"],
    *,
    snr: float = 0.16,
    corrector_steps: int = 1,
) -> Float[Array, "b *event"]:
    """Sample by predictor and corrector (Song et al. 2021, Algorithms 2 to 5).

    A reverse-diffusion step, ``u_s = (2 - m) u + G^2 score + G z`` with the forward kernel's ``m = a_t / a_s`` and
    ``G^2 = b_t^2 - m^2 b_s^2``, then Langevin steps (S3) at s of length ``2 m^2 (snr |z| / |score|)^2``. The norms,
    which the paper averages over the batch, are replaced by those of the corruption kernel's score,
    ``|z| / |score| = b``: a sample then depends on its own key alone. However many the steps, the corrector leaves the
    variance too large by a relative ``e / (1 - e)``, e = (snr b)^2 / Var u, which fades as b does where the data is
    smooth. ``1 + corrector_steps`` field evaluations a step.

    Args:
        field: any Field.
        u: observations at ``times[0]``.
        times: grid, ``steps + 1`` decreasing times.
        keys: one PRNG key a sample.
        snr: length of a Langevin step, as the ratio of its drift to its noise.
        corrector_steps: Langevin steps after each predictor step.

    Returns:
        Observations at ``times[-1]``.

    Raises:
        ValueError: if snr is not in (0, 1], beyond which the corrector is unstable, or corrector_steps is negative.
    """
    checks.real("snr", snr, high=1.0, open_low=True)
    checks.integer("corrector_steps", corrector_steps, low=0)
    process, draws = field.process, 1 + corrector_steps

    def noise_estimate(u: Float[Array, "b *event"], t: Float[Array, ""]) -> Float[Array, "b *event"]:
        return process.recover(u, evaluate(field, u, t), t)[1]

    def step(u: Float[Array, "b *event"], at: Interval) -> Float[Array, "b *event"]:
        (a_s, b_s), (a, b) = process.schedule.scales(at.s), process.schedule.scales(at.t)
        m = a / a_s
        fresh = -jnp.expm1(-2.0 * log_snr_gap(process.schedule, at))  # G^2 / b^2
        z = stepping.fresh_noise(keys, at.number * draws, u)
        u = (2.0 - m) * u - b * fresh * noise_estimate(u, at.t) + b * jnp.sqrt(fresh) * z
        length = snr * m
        for extra in range(1, draws):
            z = stepping.fresh_noise(keys, at.number * draws + extra, u)
            u += 2.0 * b_s * length * (z - length * noise_estimate(u, at.s))
        return u

    return march(step, u, times.astype(u.dtype))[0]
