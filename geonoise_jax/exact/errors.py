r"""How far a computed average over the noise level may be off, for each quantity and query.

An average E[phi] errs by the relative error of the posterior, times the spread of phi: the average of what hardly
varies is accurate even where the posterior is not. Its parts:

unresolved   what 24 nodes a panel miss, from the decay of the Legendre coefficients of the posterior density, continued
             to the degree at which a Gauss rule errs
outside      the share of the integral that lies outside the window
rounding     in the exponents of points, in nats; and of the working precision
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from geonoise_jax.exact.integral import Coefficients, Integral
from geonoise_jax.exact.quadrature import unresolved

# Points that compete at one noise level are at most some multiples of b / a apart.
_REACH = 6.0
_ROUNDINGS, _ROUNDINGS_OF_TIMES = 4.0, 0.5
# Of vectors, whose largest entry may err by more than their length says; of what rounded exponents do to a variance.
_ROUNDINGS_OF_VECTORS, _CAUTION = 8.0, 2.0
_NARROWEST = 1e-5
_PER_ENTRY = 1.42  # (1 + log 2 pi) / 2

Error = Float[Array, "2 B"]  # of integration and of rounding


@functools.partial(jax.jit, static_argnums=1)
def of_log_density(integral: Integral, dim: int) -> Error:
    """Return the estimated error of log p(u), of an event of ``dim`` entries, beside the larger of its size and 1."""
    size = jnp.maximum(jnp.abs(integral.log_density), 1.0)
    # The Gaussian's normaliser and exponent cancel where the density is of the order of one.
    log_b = (integral.weights * jnp.abs(jnp.log(integral.nodes.coeffs.b))).sum(-1)
    terms = dim * (log_b + _PER_ENTRY)
    mass = jnp.stack([_missed(integral), _blurred(integral, jnp.ones_like(integral.weights))])
    return mass / size[None] + _rounded(0.5 * terms / size, size)


@jax.jit
def of_average(integral: Integral, phi: Float[Array, "B T"]) -> Error:
    """Return the estimated relative error of E[phi | u], phi given at the nodes."""
    mean = (integral.weights * phi).sum(-1)
    return _of_centred(integral, phi - mean[:, None], jnp.abs(mean)) + _rounded(0.0, mean)


@jax.jit
def of_posterior(integral: Integral) -> Error:
    """Return the estimated relative error of mean and standard deviation of p(t | u), the larger."""
    return worst(of_average(integral, integral.nodes.t), 0.5 * of_variance(integral))


@jax.jit
def worst(*errors: Error) -> Error:
    """Return, for every query, the error with the largest sum of its parts."""
    stacked = jnp.stack(errors)
    place = jnp.argmax(stacked.sum(axis=1), axis=0)
    return jnp.take_along_axis(stacked, place[None, None], axis=0)[0]


@jax.jit
def of_variance(integral: Integral) -> Error:
    """Return the estimated relative error of Var[t | u], at least that of a width of 1e-5 of the mean."""
    t, weights = integral.nodes.t, integral.weights
    mean = (weights * t).sum(-1, keepdims=True)
    square = (t - mean) ** 2
    var = (weights * square).sum(-1)
    size = jnp.maximum(var, (_NARROWEST * mean[:, 0]) ** 2)
    error = _of_centred(integral, square - var[:, None], size).at[1].multiply(_CAUTION)
    if integral.spacing is None:
        return error + _rounded(0.0, size)
    # Times round to parts of themselves, beside which the posterior is narrow.
    narrowness = jnp.abs(mean[:, 0]) / jnp.sqrt(jnp.maximum(size, jnp.finfo(size.dtype).tiny))
    return error + _rounded(_ROUNDINGS_OF_TIMES * narrowness, size)


@jax.jit
def of_field(integral: Integral, pair: Coefficients, value: Float[Array, "B D"]) -> Error:
    """Return the estimated relative error, in norm, of ``E[alpha D_t + beta R_t | u]``.

    D_t is taken to be as long as the data are, and R_t to be ``b sqrt(D)`` long unless the law knows better: errors are
    those of the averages of alpha and beta times these lengths, relative to the average itself.

    Args:
        integral: at the observations.
        pair: alpha and beta at the nodes.
        value: the average.
    """
    alpha, beta = pair
    k, weights = integral.nodes.coeffs, integral.weights
    root = value.shape[1] ** 0.5
    length, residual = integral.scores.length, integral.scores.residual
    parts = alpha * (root if length is None else length[:, None]), beta * (k.b * root if residual is None else residual)
    size = jnp.sqrt((value * value).sum(-1))
    # Where terms cancel, what they are rounded to is large beside what is left of them.
    typical = sum((weights * jnp.abs(part)).sum(-1) for part in parts)
    error = sum(_of_centred(integral, part - (weights * part).sum(-1, keepdims=True), size) for part in parts)
    error += _rounded(_ROUNDINGS_OF_VECTORS * typical / jnp.maximum(size, jnp.finfo(size.dtype).tiny), size)
    if integral.scores.coarseness is not None:
        error = error.at[1].add((weights * jnp.abs(beta) * integral.scores.coarseness).sum(-1) / size)
    if integral.scores.mixing is None:
        return error
    moved = jnp.abs(alpha - k.a * beta) * _REACH * k.b / k.a
    return error.at[1].add((weights * integral.scores.mixing * moved).sum(-1) / size)


def _of_centred(integral: Integral, apart: Float[Array, "B T"], size: Float[Array, "B"]) -> Error:
    """Return the estimated error of the average of ``apart``, which is about zero, relative to ``size``."""
    apart, size = jnp.abs(apart), jnp.maximum(size, jnp.finfo(size.dtype).tiny)
    spread = (integral.weights * apart).sum(-1)
    return jnp.stack([_missed(integral) * spread, _blurred(integral, apart)]) / size[None]


def _missed(integral: Integral) -> Float[Array, "B"]:
    """Return the share of the posterior's mass that integration is estimated to miss."""
    if integral.spacing is None:
        return integral.outside
    return integral.outside + unresolved(integral.spacing, integral.weights)


def _blurred(integral: Integral, phi: Float[Array, "B T"]) -> Float[Array, "B"]:
    """Return how far the average of a positive ``phi`` is off where log p(u | t) is rounded."""
    weighted, (blur, grain) = integral.weights * phi, (integral.scores.blur, integral.scores.grain)
    alike = jnp.zeros_like(weighted[:, 0]) if blur is None else (weighted * blur).sum(-1)
    return alike if grain is None else alike + jnp.sqrt(((weighted * grain) ** 2).sum(-1))


def _rounded(roundings: ArrayLike, like: Float[Array, "B"]) -> Error:
    """Return the error of so many roundings of the working precision, beside the few that any number has."""
    size = float(jnp.finfo(like.dtype).eps) * (_ROUNDINGS + roundings)
    return jnp.stack([jnp.zeros_like(like), jnp.broadcast_to(jnp.asarray(size, like.dtype), like.shape)])
