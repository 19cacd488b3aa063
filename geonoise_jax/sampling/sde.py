r"""Stochastic samplers beside ancestral sampling, for every schedule and target.

With sigma = b / a, eta = log sigma and the score grad log p_t(u) = -eps(u) / b, eps(u) being recovered from the field:

(S1)  du = a'/a u dt + g dw,  g^2 = 2 b^2 d eta/dt                       the forward SDE (Song et al. 2021)
(S2)  du = [velocity + (w / 2b) eps] dt + sqrt(w) dw,  t decreasing      same marginals for every w(t) >= 0:
                                                                         w = g^2 is the reverse of (S1), w = 0 the ODE
(S3)  u <- u + step score + sqrt(2 step) z                               Langevin dynamics at a fixed time

(S2) with a free w is the SDE of stochastic interpolants (Albergo, Boffi & Vanden-Eijnden 2023). A step of any length
from t to s is taken in closed form: of the noise b_s eps that is left at s a part is exchanged for fresh noise,

(S4)  u_s = a_s x + b_s e^-delta eps + c sqrt(1 - e^-2delta) z,   delta = int_s^t w / 2b^2,
      c = 2 b_t b_s / (b_t + b_s)

where delta = eta(t) - eta(s) for w = g^2, and log(b_t / b_s) for w = d(b^2)/dt. With x and eps held, c = b_s would be
exact: at w = g^2 that is ancestral sampling. It loses the spread of x over the step; c = b_t, the noise of the forward
kernel and of Euler-Maruyama, has too much of it. The harmonic mean takes out the most of either in short steps, and is
at most 2 b_s in long ones: on Gaussian data a step from the true law at t ends with at most the true variance plus
3 b_s^2, however long it is.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from geonoise_jax import checks
from geonoise_jax.errors import UserError
from geonoise_jax.fields import Field
from geonoise_jax.process.process import expand
from geonoise_jax.process.schedules import Schedule
from geonoise_jax.sampling import stepping
from geonoise_jax.sampling.discrete import held_step, kept_less, log_snr_gap
from geonoise_jax.sampling.stepping import Interval, evaluate, march

DIFFUSIONS = ("reverse", "interpolant")
PREDICTORS = ("ancestral", "reverse_diffusion")
CORRECTORS = ("ald", "langevin")
ORDERS = ("predictor_first", "corrector_first")
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

    Their N levels, the last of which is followed by 0, are N - 1 steps here and an Euler step to 0: ``num_steps=N - 1,
    denoise=True`` of :func:`geonoise_jax.sampling.sample`, 2 N - 1 evaluations. Only the churn of that last step is
    left out, which is from a level below every S_tmin that they publish.

    A step in which sigma falls many times over makes the law too wide, not by its fresh noise but by the half of the
    slope that Heun's method keeps: on Gaussian data at most sqrt(2) times as wide as without churn, which is within a
    tenth for 25 steps of ``rho`` (their grid) on VE, but several times for 25 steps of ``uniform``.

    The Heun step is taken for ``u / a`` in sigma = b / a, as theirs is, whatever the schedule; without churn this is
    :func:`~geonoise_jax.sampling.ode.heun` on the VE schedule exactly, and the same second-order ODE solution in
    another variable on every other. The level is never raised beyond the schedule's ``t_max``, where the field is
    not defined.

    Args:
        field: any Field.
        u: observations at ``times[0]``.
        times: grid, ``steps + 1`` decreasing times.
        keys: one PRNG key a sample.
        s_churn: total stochasticity, S_churn: each step raises sigma by the factor ``1 + min(s_churn / N, sqrt(2) -
            1)``, where N = ``len(times)`` is the number of levels.
        s_tmin: smallest sigma that is raised.
        s_tmax: largest sigma that is raised.
        s_noise: standard deviation of the fresh noise.

    Returns:
        Observations at ``times[-1]``.

    Raises:
        ValueError: if an option is negative, s_tmin is above s_tmax, or an option has no effect as s_churn is 0.
    """
    for name, value in {"s_churn": s_churn, "s_tmin": s_tmin, "s_tmax": s_tmax, "s_noise": s_noise}.items():
        checks.real(name, value, low=0.0, infinite=name == "s_tmax")
    if s_tmin > s_tmax:
        raise UserError(f"s_tmin = {s_tmin!r}: must be at most s_tmax = {s_tmax!r}")
    if s_churn == 0.0:
        unused = {"s_tmin": (s_tmin, 0.0), "s_tmax": (s_tmax, math.inf), "s_noise": (s_noise, 1.0)}
        checks.without_effect("s_churn = 0", unused)
    process = field.process
    rise = math.log1p(min(s_churn / len(times), _MAX_CHURN))

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

    return march(step, u, times.astype(u.dtype))


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
    stochasticity: float = 1.0,
    diffusion: str = "reverse",
) -> Float[Array, "b *event"]:
    """Integrate the SDE (S2) by the step (S4): weak order one, as Euler-Maruyama; one field evaluation a step.

    It agrees with Euler-Maruyama for short steps. Unlike that, a step of any length leaves noise of at most twice the
    size that the observation has at s: neither a start where a vanishes nor a level b that falls much in one step makes
    the law of data wider than b_s too wide. What a long step does lose is spread of x, whose estimate it holds.

    Args:
        field: any Field.
        u: observations at ``times[0]``.
        times: grid, ``steps + 1`` decreasing times.
        keys: one PRNG key a sample.
        stochasticity: factor of sqrt(w): 0 is :func:`~geonoise_jax.sampling.discrete.ddim`, Euler's method where a and
            b are linear in t, as for VE and Linear; 1 is the full w.
        diffusion: ``"reverse"``, w = g^2; or ``"interpolant"``, w = d(b^2)/dt, which is less where a is small. They
            agree on VE.

    Returns:
        Observations at ``times[-1]``.

    Raises:
        ValueError: if the stochasticity is negative, the diffusion is unknown, or chosen without stochasticity.
    """
    checks.real("stochasticity", stochasticity, low=0.0)
    checks.choice("diffusion", diffusion, DIFFUSIONS)
    if stochasticity == 0.0:
        checks.without_effect("stochasticity = 0", {"diffusion": (diffusion, "reverse")})
    process = field.process

    def step(u: Float[Array, "b *event"], at: Interval) -> Float[Array, "b *event"]:
        r = evaluate(field, u, at.t)
        moved = held_step(process, u, r, at.t, at.s)
        if stochasticity == 0.0:
            return moved
        _, eps = process.recover(u, r, at.t)
        b, b_s = process.schedule.scales(at.t)[1], process.schedule.scales(at.s)[1]
        gap = log_snr_gap(process.schedule, at) if diffusion == "reverse" else jnp.log(b / b_s)
        delta = stochasticity**2 * gap
        fresh = jnp.sqrt(-jnp.expm1(-2.0 * delta)) * stepping.fresh_noise(keys, at.number, u)
        return moved + b_s * (jnp.expm1(-delta) * eps + 2.0 * b / (b + b_s) * fresh)

    return march(step, u, times.astype(u.dtype))


def predictor_corrector(
    field: Field,
    u: Float[Array, "b *event"],
    times: Float[Array, "times"],
    keys: Key[Array, "b"],
    *,
    snr: float = 0.16,
    corrector_steps: int = 1,
    predictor: str = "ancestral",
    corrector: str = "ald",
    order: str = "predictor_first",
) -> Float[Array, "b *event"]:
    """Sample by predictor and corrector (Song et al. 2021, Algorithms 2 to 5).

    ``1 + corrector_steps`` field evaluations a step. The predictor goes from t to s. With m = a_t / a_s it is, in the
    words of their code,

    * ``"ancestral"``: :func:`~geonoise_jax.sampling.discrete.ancestral`, which for VE is their ``ancestral_sampling``;
    * ``"reverse_diffusion"``: ``(2 - m) u + G^2 score + G z`` with ``G^2 = b_t^2 - m^2 b_s^2``, that of Algorithms 2
      and 3. It is for as many steps as theirs, 1000: a long one leaves noise of size b_t, too much for s.

    The corrector takes Langevin steps (S3) of length ``2 m^2 (snr |z| / |score|)^2``, m being that of the predictor's
    step, with the norms

    * ``"ald"``: of the corruption kernel's score, ``|z| / |score| = b``. However many the steps, it leaves the variance
      too large by a relative ``e / (1 - e)``, e = (snr b)^2 / Var u, which fades as b does where the data is smooth;
    * ``"langevin"``: of the noise drawn and of the score found, each sample's own. The paper and the released code
      average them over the batch, so that a sample would depend on the others.

    The paper corrects after its predictor, at s. The released code corrects before it, at t, which is ``order =
    "corrector_first"``; its VE default is that with ``"langevin"``, ``"reverse_diffusion"``, one corrector step, snr
    0.16 and 1000 steps, and ends without the noise of the last predictor, as ``denoise=True`` of
    :func:`geonoise_jax.sampling.sample` does with one more evaluation.

    Args:
        field: any Field.
        u: observations at ``times[0]``.
        times: grid, ``steps + 1`` decreasing times.
        keys: one PRNG key a sample.
        snr: length of a Langevin step, as the ratio of its drift to its noise.
        corrector_steps: Langevin steps with each predictor step.
        predictor: ``"ancestral"`` or ``"reverse_diffusion"``.
        corrector: ``"ald"`` or ``"langevin"``.
        order: ``"predictor_first"`` or ``"corrector_first"``.

    Returns:
        Observations at ``times[-1]``.

    Raises:
        ValueError: if snr is not in (0, 1], beyond which the corrector is unstable, corrector_steps is negative, a
            choice is unknown, or one of the corrector is made without corrector steps.
    """
    checks.real("snr", snr, low=0.0, high=1.0, open_low=True)
    checks.integer("corrector_steps", corrector_steps, low=0)
    for name, value, known in (
        ("predictor", predictor, PREDICTORS),
        ("corrector", corrector, CORRECTORS),
        ("order", order, ORDERS),
    ):
        checks.choice(name, value, known)
    if corrector_steps == 0:
        unused = {"snr": (snr, 0.16), "corrector": (corrector, "ald"), "order": (order, "predictor_first")}
        checks.without_effect("corrector_steps = 0", unused)
    process, draws, first = field.process, 1 + corrector_steps, order == "corrector_first"
    predict = _ancestral_step if predictor == "ancestral" else _reverse_diffusion_step

    def correct(u: Any, t: Any, m: Any, z: Any) -> Float[Array, "b *event"]:
        eps = process.recover(u, evaluate(field, u, t), t)[1]
        length = snr * m
        if corrector == "langevin":
            length *= expand(_norm(z) / _norm(eps), u)
        return u + 2.0 * process.schedule.scales(t)[1] * length * (z - length * eps)

    def step(u: Float[Array, "b *event"], at: Interval) -> Float[Array, "b *event"]:
        m = process.schedule.scales(at.t)[0] / process.schedule.scales(at.s)[0]
        for draw in range(draws):
            z = stepping.fresh_noise(keys, at.number * draws + draw, u)
            if draw == (corrector_steps if first else 0):
                u = predict(field, u, at, z)
            else:
                u = correct(u, at.t if first else at.s, m, z)
        return u

    return march(step, u, times.astype(u.dtype))


def _ancestral_step(
    field: Field, u: Float[Array, "b *event"], at: Interval, z: Float[Array, "b *event"]
) -> Float[Array, "b *event"]:
    process, r = field.process, evaluate(field, u, at.t)
    eps, b_s = process.recover(u, r, at.t)[1], process.schedule.scales(at.s)[1]
    w = -jnp.expm1(-2.0 * log_snr_gap(process.schedule, at))
    return held_step(process, u, r, at.t, at.s) + b_s * (kept_less(w) * eps + jnp.sqrt(w) * z)


def _reverse_diffusion_step(
    field: Field, u: Float[Array, "b *event"], at: Interval, z: Float[Array, "b *event"]
) -> Float[Array, "b *event"]:
    process = field.process
    (a, b), a_s = process.schedule.scales(at.t), process.schedule.scales(at.s)[0]
    w = -jnp.expm1(-2.0 * log_snr_gap(process.schedule, at))  # G^2 / b^2
    eps = process.recover(u, evaluate(field, u, at.t), at.t)[1]
    return (2.0 - a / a_s) * u + b * (jnp.sqrt(w) * z - w * eps)


def _norm(v: Float[Array, "b *event"]) -> Float[Array, "b"]:
    return jnp.sqrt(jnp.square(v).reshape(len(v), -1).sum(-1))
