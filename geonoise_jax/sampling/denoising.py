r"""Blind denoising diffusion (Kadkhodaie, Pooladian, Chewi & Simoncelli 2026, arXiv:2602.09639): no schedule at all.

With a blind denoiser D(X) = E[x | X] on X = x + sigma eps, and a diffusion that follows the noise that is there:

(1)  dX = (D(X) - X) dt + sqrt(2 alpha) sigma_hat(X) dB,     sigma_hat(X) = |X - D(X)| / sqrt(dim)

(2)  X' = e^-h X + (1 - e^-h) D(X) + sigma_hat(X) sqrt(alpha (1 - e^-2h)) z,   z ~ N(0, I)

(2) is the exponential Euler step of length h: exact while D and sigma_hat are held. Since D - X is sigma^2 times the
score of the noisy data, the law of X is that of x + sigma eps with d sigma^2 / dt = -2 (1 - alpha) sigma^2, for every
alpha in [0, 1): this is the implicit schedule. On one datum x0, where D = x0, a step gives exactly

(3)  E sigma_hat(X')^2 = sigma_hat(X)^2 (e^-2h + alpha (1 - e^-2h)),

which is smaller than sigma_hat(X)^2 iff alpha < 1. The number of steps from sigma to sigma_end is therefore about
log(sigma / sigma_end) / ((1 - alpha) h).

sigma_hat is the noise level for data of low intrinsic dimension d: |X - D|^2 holds only the noise normal to the data,
sigma_hat ~ sigma sqrt(1 - d / dim).
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from geonoise_jax import checks
from geonoise_jax.errors import UserError
from geonoise_jax.fields import Field
from geonoise_jax.process.process import expand
from geonoise_jax.process.schedules import Schedule
from geonoise_jax.process.targets import Signal
from geonoise_jax.sampling.blind import check_blind, evaluate_blind, root_mean_square, running
from geonoise_jax.sampling.outcome import Outcome
from geonoise_jax.sampling.stepping import fresh_noise

_PROBES = 64


def bddm(
    field: Field,
    u: Float[Array, "b *event"],
    keys: Key[Array, "b"],
    *,
    step_size: float = 0.05,
    alpha: float = 0.5,
    sigma_end: float | None = None,
    max_steps: int = 1000,
) -> Outcome:
    """Sample with a blind denoiser, equation (2), until the noise it sees is gone.

    The default step and alpha take a sample from sigma = 80 to 0.002 in about 430 steps.

    Args:
        field: a blind Field of the Signal target on a schedule with a = 1.
        u: observations to start from, usually noise of scale t_max.
        keys: one PRNG key per sample.
        step_size: h, length of a step in the time of equation (1).
        alpha: strength of the diffusion, in [0, 1); 0 is deterministic.
        sigma_end: a sample stops when sigma_hat is at most this; the schedule's b(t_min) by default.
        max_steps: largest number of field evaluations of a sample.

    Returns:
        The last denoised estimates D(X), with ``evaluations``; ``sigma``, the last sigma_hat; ``converged``, 1 where it
        is at most sigma_end and 0 elsewhere; and ``noise_level``, [b, max_steps], sigma_hat at every step: the
        implicit schedule, NaN after a sample has stopped.

    Raises:
        ValueError: if the field needs t or is no denoiser of X = x + sigma eps, or an option is out of its range.
    """
    check_denoiser(field)
    checks.real("step_size", step_size, low=0.0, open_low=True)
    checks.real("alpha", alpha, low=0.0, high=1.0, open_high=True)
    checks.integer("max_steps", max_steps, low=1)
    if sigma_end is None:
        sigma_end = _last_level(field.process.schedule)
    checks.real("sigma_end", sigma_end, low=0.0, open_low=True)
    shrink, spread = math.exp(-step_size), math.sqrt(-alpha * math.expm1(-2.0 * step_size))

    def body(state: _Diffusion) -> _Diffusion:
        estimate = evaluate_blind(field, state.u)
        sigma = root_mean_square(state.u - estimate)
        going = state.active & (sigma > sigma_end)
        # Equation (2) as a move of the residual X - D, which keeps its digits near the data.
        noise = expand(spread * sigma, u) * fresh_noise(keys, state.step, u)
        moved = estimate + shrink * (state.u - estimate) + noise
        seen = jnp.where(state.active, sigma, jnp.nan)
        return _Diffusion(
            state.step + 1,
            jnp.where(expand(going, u), moved, state.u),
            jnp.where(expand(state.active, u), estimate, state.estimate),
            jnp.where(state.active, sigma, state.sigma),
            state.noise_level.at[:, state.step].set(seen),
            state.evaluations + state.active,
            going,
        )

    ended = jax.lax.while_loop(lambda state: running(state, max_steps), body, _start(u, max_steps))
    statistics = {"evaluations": ended.evaluations, "sigma": ended.sigma, "noise_level": ended.noise_level}
    return Outcome(ended.estimate, {**statistics, "converged": (ended.sigma <= sigma_end).astype(u.dtype)})


class _Diffusion(NamedTuple):
    """State of the loop."""

    step: Int[Array, ""]
    u: Float[Array, "b *event"]
    estimate: Float[Array, "b *event"]
    sigma: Float[Array, "b"]
    noise_level: Float[Array, "b steps"]
    evaluations: Float[Array, "b"]
    active: Bool[Array, "b"]


def _start(u: Float[Array, "b *event"], max_steps: int) -> _Diffusion:
    zero = jnp.zeros(len(u), u.dtype)
    trace = jnp.full((len(u), max_steps), jnp.nan, u.dtype)
    return _Diffusion(jnp.asarray(0), u, u, jnp.full_like(zero, jnp.nan), trace, zero, jnp.ones(len(u), bool))


def check_denoiser(field: Field) -> None:
    """Require a blind denoiser of X = x + sigma eps.

    Raises:
        ValueError: if the field needs t, its target is not the signal, or its schedule shrinks the signal.
    """
    check_blind(field)
    process = field.process
    if not isinstance(process.parameterization, Signal):
        raise UserError(
            f"field.process.parameterization = {process.parameterization}: must be Signal(), as only then is the "
            "estimate of x known without t"
        )
    if not _keeps_signal(process.schedule):
        raise UserError(f"field.process.schedule = {process.schedule}: must keep the signal, a = 1, as VE does")


@functools.lru_cache(maxsize=64)
def _keeps_signal(schedule: Schedule) -> bool:
    with jax.ensure_compile_time_eval():
        return bool(np.all(np.asarray(schedule.scales(jnp.linspace(schedule.t_min, schedule.t_max, _PROBES))[0]) == 1))


@functools.lru_cache(maxsize=64)
def _last_level(schedule: Schedule) -> float:
    with jax.ensure_compile_time_eval():
        return float(schedule.scales(jnp.asarray(schedule.t_min, jnp.result_type(float)))[1])
