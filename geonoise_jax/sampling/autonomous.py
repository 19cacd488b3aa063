r"""Samplers whose coefficients ignore t: gradient descent on Equilibrium Matching fields (Wang & Du 2025, 2510.02300).

An equilibrium field r = c x + d eps is zero at the data and points from them to the noise: u - step_size r descends an
implicit energy. Seen from x, ``eps = (u - a x) / b``, so that

(1)  f_t(u) = (d / b)(u - x)   for one datum x   iff   c b + d (1 - a) = 0

which for the Linear schedule is c = -d: the pull of a datum then vanishes there at every noise level, known or not.
With d ~ b, as in EqM, it does so smoothly, and descent converges. Flow matching's velocity, c = -1 and d = 1, satisfies
(1) too, but keeps its size up to the data: its descent is Euler integration without a clock, which never settles.

With v_k = u_k - u_{k-1} the last displacement, all samplers here evaluate the field at p_k = u_k + momentum v_k:

(2)  descent             momentum = 0         u_{k+1} = u_k - step_size f(u_k)
(3)  Nesterov            (1983, equation 4)   u_{k+1} = p_k - step_size f(p_k)
(4)  Nesterov, released  (published code)     u_{k+1} = u_k - step_size f(p_k)

In (4) displacements do not add up, v_{k+1} = -step_size f(p_k): the look-ahead holds one gradient only, and near the
data, to first order in step_size, the samples are those of (2). On a quadratic energy with curvatures in [m, L], (2)
approaches the minimum by 1 - m / L a step with step_size = 1 / L, and (3) by 1 - sqrt(m / L) with, further,
momentum = (1 - sqrt(m / L)) / (1 + sqrt(m / L)).

Adaptive compute (section 4 of that paper): a sample stops as soon as its field is small, whatever the others do.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from geonoise_jax import checks
from geonoise_jax.errors import UserError
from geonoise_jax.fields import Field
from geonoise_jax.process.process import Process, expand
from geonoise_jax.sampling.blind import check_blind, evaluate_blind, running
from geonoise_jax.sampling.outcome import Outcome
from geonoise_jax.sampling.readout import level_of_products, tells_level

_PROBES = 64
_TOLERANCE = 1e-6


def eqm_descent(
    field: Field,
    u: Float[Array, "b *event"],
    keys: Key[Array, "b"] | None = None,
    *,
    step_size: float = 0.0017,
    max_steps: int = 249,
    tolerance: float = 0.0,
) -> Outcome:
    """Descend a blind equilibrium field, equation (2).

    The defaults are those of the published sampling code, made for g = 4 min(1, t / 0.2): what it calls 250 steps are
    249 evaluations. The linear g = t needs steps twenty times as long for the same contraction near the data,
    1 - step_size dg/dt.

    Args:
        field: a blind Field of an equilibrium target.
        u: observations to start from, usually noise at t_max.
        keys: not used: a deterministic sampler with the signature of the others.
        step_size: length of a step, in units of the field.
        max_steps: largest number of field evaluations of a sample; three numbers are kept of each.
        tolerance: a sample stops when the root mean square of its field, |f| / sqrt(D), is at most this; 0 means that
            it stops only where the field vanishes.

    Returns:
        Samples of the data, with ``evaluations``; ``grad_norm``, the root mean square of the field where it was last
        evaluated, which for samples that stopped is where they are; and ``converged``, 1 for these and 0 for others.
        Where the field's residual tells the noise level, also ``noise_level``, [b, max_steps], the time read off it at
        every evaluation: the implicit schedule (:mod:`geonoise_jax.sampling.readout`), NaN after a sample has stopped.

    Raises:
        ValueError: if the field needs t, its target does not point from the data to the noise (1), or an option is out
            of its range.
    """
    del keys
    return _descend(field, u, step_size, max_steps, tolerance, momentum=0.0, accumulate=True)


def eqm_nesterov(
    field: Field,
    u: Float[Array, "b *event"],
    keys: Key[Array, "b"] | None = None,
    *,
    step_size: float = 0.0017,
    momentum: float = 0.3,
    max_steps: int = 249,
    tolerance: float = 0.0,
) -> Outcome:
    """Descend a blind equilibrium field by Nesterov's accelerated gradient, equation (3).

    Args, returns and errors as :func:`eqm_descent`, and ``momentum`` in [0, 1): a displacement is carried on for about
    1 / (1 - momentum) steps, which lengthens the steps as much.
    """
    del keys
    return _descend(field, u, step_size, max_steps, tolerance, momentum=momentum, accumulate=True)


def eqm_nesterov_released(
    field: Field,
    u: Float[Array, "b *event"],
    keys: Key[Array, "b"] | None = None,
    *,
    step_size: float = 0.0017,
    momentum: float = 0.3,
    max_steps: int = 249,
    tolerance: float = 0.0,
) -> Outcome:
    """Descend a blind equilibrium field as the published code does under the name NAG-GD, equation (4).

    Args, returns and errors as :func:`eqm_nesterov`.
    """
    del keys
    return _descend(field, u, step_size, max_steps, tolerance, momentum=momentum, accumulate=False)


class _Descent(NamedTuple):
    """State of the loop: ``shift`` is the last displacement of u; ``products`` are means of (u^2, u r, r^2)."""

    step: Int[Array, ""]
    u: Float[Array, "b *event"]
    shift: Float[Array, "b *event"]
    evaluations: Float[Array, "b"]
    grad_norm: Float[Array, "b"]
    active: Bool[Array, "b"]
    converged: Bool[Array, "b"]
    products: Float[Array, "3 b steps"]


def _descend(
    field: Field,
    u: Float[Array, "b *event"],
    step_size: float,
    max_steps: int,
    tolerance: float,
    *,
    momentum: float,
    accumulate: bool,
) -> Outcome:
    checks.real("step_size", step_size, low=0.0, open_low=True)
    checks.real("momentum", momentum, low=0.0, high=1.0, open_high=True)
    checks.real("tolerance", tolerance, low=0.0)
    checks.integer("max_steps", max_steps, low=1)
    check_descent(field)

    def body(state: _Descent) -> _Descent:
        point = state.u + momentum * state.shift
        r = evaluate_blind(field, point)
        products = _products(point, r)
        norm = jnp.sqrt(products[2])
        # A sample whose field is not a number stops too: it cannot recover.
        going = state.active & (norm > tolerance)
        moved = (point if accumulate else state.u) - step_size * r
        stopped = jnp.where(expand(state.active, u), point, state.u)
        seen = jnp.where(state.active[None], products, jnp.nan)
        after = jnp.where(expand(going, u), moved, stopped)
        return _Descent(
            state.step + 1,
            after,
            after - state.u,
            state.evaluations + state.active,
            jnp.where(state.active, norm, state.grad_norm),
            going,
            state.converged | (state.active & (norm <= tolerance)),
            state.products.at[:, :, state.step].set(seen),
        )

    ended = jax.lax.while_loop(lambda state: running(state, max_steps), body, _start(u, max_steps))
    statistics = {"evaluations": ended.evaluations, "grad_norm": ended.grad_norm}
    if tells_level(field.process):
        statistics["noise_level"] = level_of_products(field.process, ended.products)
    return Outcome(ended.u, {**statistics, "converged": ended.converged.astype(u.dtype)})


def _start(u: Float[Array, "b *event"], max_steps: int) -> _Descent:
    zero, no = jnp.zeros(len(u), u.dtype), jnp.zeros(len(u), bool)
    unseen = jnp.full((3, len(u), max_steps), jnp.nan, u.dtype)
    return _Descent(jnp.asarray(0), u, jnp.zeros_like(u), zero, jnp.full_like(zero, jnp.nan), ~no, no, unseen)


def _products(u: Float[Array, "b *event"], r: Float[Array, "b *event"]) -> Float[Array, "3 b"]:
    return jnp.stack([(left * right).reshape(len(u), -1).mean(-1) for left, right in ((u, u), (u, r), (r, r))])


def check_descent(field: Field) -> None:
    """Require a blind field that points from the data to the noise, equation (1).

    Raises:
        ValueError: if the field needs t, or is zero elsewhere than at the data, or points to them.
    """
    check_blind(field)
    problem = _not_equilibrium(field.process)
    if problem:
        raise UserError(
            f"{field.process} cannot be descended: {problem}; train on Process(Linear(), Equilibrium()), or sample "
            "along times (for a denoiser on VE: bddm)"
        )


@functools.lru_cache(maxsize=256)
def _not_equilibrium(process: Process) -> str:
    """Say how a process violates equation (1), or return an empty string."""
    schedule = process.schedule
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        t = np.linspace(schedule.t_min, schedule.t_max, _PROBES)
        k = process.coeffs(jnp.asarray(t, jnp.float64))
        pull = np.asarray(k.d / k.b)
        offset = np.asarray(k.c * k.b + k.d * (1.0 - k.a))
        size = np.asarray(jnp.hypot(k.c, k.d) * jnp.hypot(k.a, k.b))
    if (pull <= 0.0).any():
        return f"at t = {t[(pull <= 0.0).argmax()]:g} its target does not point from the data to the noise (d <= 0)"
    away = np.abs(offset) > _TOLERANCE * size
    if away.any():
        return f"at t = {t[away.argmax()]:g} its target is not zero at the data (c b + d (1 - a) is not 0)"
    return ""
