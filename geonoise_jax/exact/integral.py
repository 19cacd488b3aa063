"""Integration over the noise level: nodes for each query, their posterior weights, averages of fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from geonoise_jax.exact import quadrature
from geonoise_jax.exact.base import Distribution, Scores, compiled_average, compiled_project, compiled_scores
from geonoise_jax.exact.prior import Domain, Nodes, Prior
from geonoise_jax.exact.quadrature import Rule

_ZOOMS, _FINAL_ZOOMS = 5, 2
_FINAL_SEARCH_NODES = 12

Coefficients = tuple[Float[Array, "B T"], Float[Array, "B T"]]


class Integral(NamedTuple):
    """The posterior of the noise level at every query, and what averages over it are made of.

    Attributes:
        projection: of the queries, by their distribution.
        nodes: noise levels, [B, T].
        scores: log p(u | t) at the nodes.
        weights: posterior probabilities of the nodes, summing to one over T.
        log_density: log p(u), [B].
        error: estimated relative error, [B].
    """

    projection: Any
    nodes: Nodes
    scores: Scores
    weights: Float[Array, "B T"]
    log_density: Float[Array, "B"]
    error: Float[Array, "B"]


def integrate(distribution: Distribution, prior: Prior, rule: Rule, u: Float[Array, "B D"]) -> Integral:
    """Return the posterior of the noise level at flattened queries."""
    projection = compiled_project(distribution, u, prior.process.schedule.clean_signal)
    if prior.is_discrete:
        nodes = prior.at_integers(u.dtype)
        nodes = jax.tree.map(lambda values: jnp.broadcast_to(values[None], (len(u), *values.shape)), nodes)
        return _weigh(distribution, projection, nodes, jnp.zeros_like(nodes.t))
    domain = prior.domain(u.dtype)
    if rule.adaptive:
        edges = _adapted_edges(distribution, prior, rule, domain, jax.lax.stop_gradient(projection), u)
    else:
        edges = jnp.broadcast_to(
            jnp.asarray(rule.fixed_edges(domain), u.dtype)[None], (len(u), len(rule.fixed_edges(domain)))
        )
    eta, spacing = quadrature.gauss_legendre(edges)
    integral = _weigh(distribution, projection, prior.at_eta(eta), jnp.log(spacing))
    error = quadrature.error_estimate(edges, spacing, jax.lax.stop_gradient(integral.weights), domain)
    return integral._replace(error=error)


def average(distribution: Distribution, integral: Integral, pairs: Sequence[Coefficients]) -> Float[Array, "J B D"]:
    """Return ``E[alpha D_t + beta R_t | u]`` for several pairs (alpha, beta) given at the nodes."""
    alpha, beta = (jnp.stack(rows) * integral.weights[None] for rows in zip(*pairs, strict=True))
    return compiled_average(distribution, integral.projection, integral.nodes.level, integral.scores, alpha, beta)


def _weigh(distribution: Distribution, projection: Any, nodes: Nodes, log_spacing: Float[Array, "B T"]) -> Integral:
    scores = compiled_scores(distribution, projection, nodes.level)
    weights, log_density = _normalised(scores.relative, scores.offset, nodes.log_prior, log_spacing)
    return Integral(projection, nodes, scores, weights, log_density, jnp.zeros_like(log_density))


@jax.jit
def _normalised(relative: Array, offset: Array, log_prior: Array, log_spacing: Array) -> tuple[Array, Array]:
    log_joint = relative + log_prior + log_spacing
    total = jax.nn.logsumexp(log_joint, axis=1)
    weights = jnp.exp(log_joint - total[:, None])
    # Rounding of a large total must not leave the weights short of one.
    return weights / weights.sum(axis=1, keepdims=True), total + offset


def _adapted_edges(
    distribution: Distribution, prior: Prior, rule: Rule, domain: Domain, projection: Any, u: Float[Array, "B D"]
) -> Float[Array, "B edges"]:
    """Locate each query's noise level, roughly on a cheaper projection first where the distribution has one."""
    low, high = (jnp.full((len(u),), end, u.dtype) for end in (domain.low, domain.high))
    coarse = distribution.coarse(projection)

    def integrand(of: Any) -> quadrature.Integrand:
        def value(eta: Float[Array, "B n"]) -> tuple[Float[Array, "B n"], Float[Array, "B n"]]:
            nodes = prior.at_eta(eta)
            log_p = compiled_scores(distribution, of, nodes.level).relative
            return nodes.log_prior + log_p, jnp.log(nodes.coeffs.b)

        return value

    for _ in range(_ZOOMS):
        window = quadrature.zoom(integrand(coarse), low, high, rule)
        low, high = window.low, window.high
    if coarse is not projection:
        low, high = quadrature.widen(low, high, domain)
        for _ in range(_FINAL_ZOOMS):
            window = quadrature.zoom(integrand(projection), low, high, rule, _FINAL_SEARCH_NODES)
            low, high = window.low, window.high
    return quadrature.window_edges(window, rule, domain)
