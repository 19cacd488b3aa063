"""Integration over the noise level: nodes for each query, their posterior weights, averages of fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from geonoise_jax.exact import quadrature
from geonoise_jax.exact.base import (
    Distribution,
    Scores,
    compiled_average,
    compiled_focus,
    compiled_project,
    compiled_scores,
)
from geonoise_jax.exact.prior import Nodes, Prior
from geonoise_jax.exact.quadrature import Rule, place_panels
from geonoise_jax.exact.survey import survey

_DISCRETE_STRIDE = 16

Coefficients = tuple[Float[Array, "B T"], Float[Array, "B T"]]


class Integral(NamedTuple):
    """The posterior of the noise level at every query, and what averages over it are made of.

    Attributes:
        projection: of the queries, by their distribution.
        nodes: noise levels, [B, T].
        spacing: quadrature weights in eta, 24 nodes a panel, [B, T]; None for a discrete law.
        scores: log p(u | t) at the nodes.
        weights: posterior probabilities of the nodes, summing to one over T.
        log_density: log p(u), [B].
        outside: bound on the share of the integral that is left out, [B].
    """

    projection: Any
    nodes: Nodes
    spacing: Float[Array, "B T"] | None
    scores: Scores
    weights: Float[Array, "B T"]
    log_density: Float[Array, "B"]
    outside: Float[Array, "B"]


def integrate(distribution: Distribution, prior: Prior, rule: Rule, u: Float[Array, "B D"]) -> Integral:
    """Return the posterior of the noise level at flattened queries."""
    signal = prior.process.schedule.clean_signal
    projection = compiled_project(distribution, u, signal)
    if prior.is_discrete:
        nodes = _for_all(prior.at_integers(u.dtype), len(u))
        rough = jax.tree.map(lambda values: values[:, ::_DISCRETE_STRIDE], nodes)
        height = compiled_scores(distribution, jax.lax.stop_gradient(projection), rough.level).relative
        best = jnp.argmax(height + rough.log_prior, axis=1)[:, None]
        focus = jax.tree.map(lambda values: jnp.take_along_axis(values, best, axis=1)[:, 0], rough.level)
        projection = compiled_focus(distribution, projection, u, focus, signal)
        return _weigh(distribution, u, projection, nodes, None, jnp.zeros(len(u), u.dtype))
    domain = prior.domain(u.dtype)
    chart, landscape = survey(distribution, prior, domain, jax.lax.stop_gradient(projection), rule.dim, u.dtype)
    panels = place_panels(landscape, chart, rule, domain)
    projection = compiled_focus(distribution, projection, u, panels.focus, signal)
    edges, outside = panels.edges, panels.outside
    if not rule.adaptive:
        edges = _for_all(jnp.asarray(rule.fixed_edges(domain), u.dtype), len(u))
        outside = jnp.zeros_like(outside)
    eta, spacing = quadrature.gauss_legendre(edges)
    return _weigh(distribution, u, projection, prior.at_eta(eta), spacing, outside)


def average(distribution: Distribution, integral: Integral, pairs: Sequence[Coefficients]) -> Float[Array, "J B D"]:
    """Return ``E[alpha D_t + beta R_t | u]`` for several pairs (alpha, beta) given at the nodes."""
    alpha, beta = _weighted(list(pairs), integral.weights)
    return compiled_average(distribution, integral.projection, integral.nodes.level, integral.scores, alpha, beta)


@jax.jit
def _weighted(pairs: list[Coefficients], weights: Float[Array, "B T"]) -> tuple[Array, Array]:
    alpha, beta = (jnp.stack(rows) * weights[None] for rows in zip(*pairs, strict=True))
    return alpha, beta


def _for_all(values: Any, num: int) -> Any:
    """Give every query the same values."""
    return jax.tree.map(lambda each: jnp.broadcast_to(each[None], (num, *each.shape)), values)


def _weigh(
    distribution: Distribution,
    u: Float[Array, "B D"],
    projection: Any,
    nodes: Nodes,
    spacing: Float[Array, "B T"] | None,
    outside: Float[Array, "B"],
) -> Integral:
    scores = compiled_scores(distribution, projection, nodes.level, None if spacing is None else spacing > 0.0)
    if scores.blur is None:
        scores = _with_rounding(scores, u, distribution.least_variance(nodes.level), nodes.level.b)
    weights, log_density = _normalised(scores.relative, scores.offset, nodes.log_prior, spacing)
    return Integral(projection, nodes, spacing, scores, weights, log_density, outside)


@jax.jit
def _with_rounding(
    scores: Scores, u: Float[Array, "B D"], variance: Float[Array, "B T"], b: Float[Array, "B T"]
) -> Scores:
    """Add by how much ``log p(u | t)``, in nats, and R_t, about ``b^2 / variance`` of u, change where u is rounded."""
    u, variance = jax.lax.stop_gradient((u, variance))
    rounding = 0.5 * float(jnp.finfo(u.dtype).eps) * jnp.sqrt((u * u).sum(-1, keepdims=True))
    deviations = jnp.sqrt(u.shape[1] / variance)
    return scores._replace(
        blur=rounding * deviations, residual=b * b * deviations, coarseness=rounding * b * b / variance
    )


@jax.jit
def _normalised(relative: Array, offset: Array, log_prior: Array, spacing: Array | None) -> tuple[Array, Array]:
    log_joint = relative + log_prior
    if spacing is not None:
        log_joint += jnp.log(spacing)
    total = jax.nn.logsumexp(log_joint, axis=1)
    weights = jnp.exp(log_joint - total[:, None])
    # Rounding of a large total must not leave the weights short of one.
    return weights / weights.sum(axis=1, keepdims=True), total + offset
