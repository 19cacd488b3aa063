"""What the exact analysis returns; all arrays lead with the batch axis B of the queries."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Posterior(NamedTuple):
    """The posterior p(t | u) of the noise level.

    Attributes:
        t: nodes, increasing in T (the time unit of the schedule); each query has its own.
        weights: probabilities of the nodes, summing to one over T: ``E[phi(t) | u] = (weights * phi(t)).sum(-1)``.
        density: p(t | u) at the nodes, per unit t; the probabilities themselves for a discrete law.
        mean: E[t | u].
        var: Var[t | u].
        mode: the time of largest density.
        error: estimated relative error of mean and standard deviation, the larger.
    """

    t: Float[Array, "B T"]
    weights: Float[Array, "B T"]
    density: Float[Array, "B T"]
    mean: Float[Array, "B"]
    var: Float[Array, "B"]
    mode: Float[Array, "B"]
    error: Float[Array, "B"]


class Decomposition(NamedTuple):
    """The blind field as ``natural + transport + drift``, equation (14) of arXiv:2602.18428.

    Attributes:
        field: the blind field ``f*(u)``.
        natural: natural gradient, ``gain * grad E``.
        transport: ``E[(lambda - gain)(grad E_t - grad E) | u]``.
        drift: ``drift_scale * u``.
        gain: mean gain ``E[lambda | u]``, equations (15, 54).
        drift_scale: ``E[c / a | u]``, equations (51, 52).
        energy_grad: grad E.
    """

    field: Float[Array, "B *event"]
    natural: Float[Array, "B *event"]
    transport: Float[Array, "B *event"]
    drift: Float[Array, "B *event"]
    gain: Float[Array, "B"]
    drift_scale: Float[Array, "B"]
    energy_grad: Float[Array, "B *event"]


class Conditional(NamedTuple):
    """What is known of observations together with their noise level t, and what a blind field misses there.

    Attributes:
        field: the conditional optimum ``f_t(u)``, equation (5).
        denoiser: ``D_t(u) = E[x | u, t]``.
        energy_grad: ``grad E_t(u)``.
        estimation_error: ``|f*(u) - f_t(u)|``, equation (22).
        jensen_gap: ``b_t E[1 / b | u] - 1``, equation (66).
        velocity: sampling velocity ``du/dt`` of the conditional field, equation (19).
        blind_velocity: that of the blind field, with the coefficients at t.
        velocity_error: norm of their difference, ``|nu_t|`` times the estimation error.
    """

    field: Float[Array, "B *event"]
    denoiser: Float[Array, "B *event"]
    energy_grad: Float[Array, "B *event"]
    estimation_error: Float[Array, "B"]
    jensen_gap: Float[Array, "B"]
    velocity: Float[Array, "B *event"]
    blind_velocity: Float[Array, "B *event"]
    velocity_error: Float[Array, "B"]


class Analysis(NamedTuple):
    """Every quantity at a batch of observations.

    Attributes:
        log_density: ``log p(u)``; the marginal energy is minus it.
        energy_grad: gradient of the marginal energy.
        field: the blind optimum ``f*(u)``.
        denoiser: ``E[x | u]``.
        inverse_noise: ``E[1 / b | u]``.
        inverse_noise2: ``E[1 / b^2 | u]``.
        posterior: of the noise level.
        errors: estimated relative errors by the names above; ``decomposition`` is that of its two scalars.
        decomposition: of the blind field; None where the mean gain does not exist.
        conditional: at the observations' own noise levels; None if they are not known.
    """

    log_density: Float[Array, "B"]
    energy_grad: Float[Array, "B *event"]
    field: Float[Array, "B *event"]
    denoiser: Float[Array, "B *event"]
    inverse_noise: Float[Array, "B"]
    inverse_noise2: Float[Array, "B"]
    posterior: Posterior
    errors: dict[str, Float[Array, "B"]]
    decomposition: Decomposition | None
    conditional: Conditional | None = None


@jax.jit
def posterior_mode(t: Float[Array, "B T"], log_density: Float[Array, "B T"]) -> Float[Array, "B"]:
    """Return the time of largest density: the vertex of the parabola through the highest node and its neighbours.

    The highest node itself where there is none: at an end of the nodes that are used, beside which the density is zero.
    """
    num = t.shape[1]
    if num < 3:
        return jnp.take_along_axis(t, jnp.argmax(log_density, axis=1)[:, None], axis=1)[:, 0]
    middle = jnp.clip(jnp.argmax(log_density, axis=1), 1, num - 2)[:, None] + jnp.arange(-1, 2)[None]
    x, y = (jnp.take_along_axis(values, middle, axis=1) for values in (t, log_density))
    highest = jnp.take_along_axis(x, jnp.argmax(y, axis=1)[:, None], axis=1)[:, 0]
    used = jnp.isfinite(y).all(axis=1)
    y = jnp.where(used[:, None], y, 0.0)
    left, right = (y[:, 1] - y[:, 0]) * (x[:, 2] - x[:, 1]), (y[:, 1] - y[:, 2]) * (x[:, 1] - x[:, 0])
    curvature = left + right
    vertex = 0.5 * (right * (x[:, 0] + x[:, 1]) + left * (x[:, 1] + x[:, 2])) / jnp.where(curvature > 0, curvature, 1.0)
    return jnp.where(used & (curvature > 0), jnp.clip(vertex, x[:, 0], x[:, 2]), highest)
