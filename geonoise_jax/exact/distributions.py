"""Gaussian laws of the data and their mixtures: every density and denoiser in closed form.

Derivation, x ~ N(m, S), u = a x + b eps:

    p(u | t) = N(a m, V),  V = a^2 S + b^2 I
    D_t = m + a S V^-1 (u - a m),   R_t = u - a D_t = b^2 V^-1 (u - a m)

in the eigenbasis of S, where V is diagonal at every noise level. A mixture averages the D_t and R_t of its components
with their posterior probabilities.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from geonoise_jax.errors import UserError
from geonoise_jax.exact import checks
from geonoise_jax.exact.base import (
    LOG_2PI,
    Distribution,
    Level,
    Scores,
    average_over_levels,
    centre_node,
    log_ratio,
    over_levels,
)
from geonoise_jax.exact.pytrees import pytree
from geonoise_jax.process.keys import threefry

_ROUNDING = 1e-6


@pytree(data=("means", "vars", "weights", "spectrum", "basis"), static=("event_shape",))
class Mixture(Distribution):
    """A mixture of Gaussians.

    Attributes:
        means: [K, *event].
        vars: variances, [K, *event] (diagonal), or covariances, [K, D, D].
        weights: [K], summing to one.
        spectrum: eigenvalues of the covariances, [K, D].
        basis: their eigenvectors in columns, [K, D, D]; None where the covariances are diagonal.
    """

    means: Float[Array, "K *event"]
    vars: Float[Array, "K ..."]
    weights: Float[Array, "K"]
    spectrum: Float[Array, "K D"]
    basis: Float[Array, "K D D"] | None

    def __init__(self, means: Any, vars: Any, weights: Any = None) -> None:
        """Build a mixture; ``weights=None`` gives every component the same.

        Raises:
            ValueError: if shapes disagree, a variance is negative, a covariance is not symmetric positive
                semi-definite, the weights do not sum to one, or an entry is not finite.
        """
        name = type(self).__name__
        means = checks.array(f"{name}.means", means, at_least=2)
        vars = checks.array(f"{name}.vars", vars)
        spectrum, basis = _eigenbasis(f"{name}.vars", vars, means)
        self._set(
            means=means,
            vars=vars,
            weights=checks.weights(f"{name}.weights", weights, len(means), means.dtype),
            spectrum=spectrum,
            basis=basis,
            event_shape=means.shape[1:],
        )

    def sample(self, key: Key[Array, ""], num: int) -> Float[Array, "num *event"]:
        component_key, noise_key = jax.random.split(threefry(key))
        component = jax.random.choice(component_key, len(self.weights), (num,), p=self.weights)
        scale = jnp.sqrt(self.spectrum)[component]
        x = scale * jax.random.normal(noise_key, scale.shape, scale.dtype)
        if self.basis is not None:
            x = jnp.einsum("nd,ned->ne", x, self.basis[component])
        return self.means[component] + x.reshape(num, *self.event_shape)

    def project(self, u: Float[Array, "B D"], signal: float) -> tuple[Array, Array]:  # noqa: ARG002
        """Return u and the means in the eigenbasis of every component, [B, K, D] and [K, D]."""
        means = self.means.reshape(len(self.means), -1)
        if self.basis is None:
            return jnp.broadcast_to(u[:, None], (len(u), *means.shape)), means
        rotate = jax.lax.Precision.HIGHEST
        return (
            jnp.einsum("bd,kde->bke", u, self.basis, precision=rotate),
            jnp.einsum("kd,kde->ke", means, self.basis, precision=rotate),
        )

    def scores(self, projection: tuple[Array, Array], level: Level, used: Bool[Array, "B T"] | None = None) -> Scores:
        reference = self._variance(Level(*(centre_node(values)[:, 0] for values in level)))
        log_size = 0.5 * jnp.log(reference).sum(-1)
        relative = over_levels(
            lambda at: jax.nn.logsumexp(self._log_evidence(projection, at, reference, log_size), axis=-1), level, used
        )
        return Scores(relative.T, -log_size[:, 0] - 0.5 * self.dim * LOG_2PI, (reference, log_size))

    def average(
        self,
        projection: tuple[Array, Array],
        level: Level,
        scores: Scores,
        alpha: Float[Array, "J B T"],
        beta: Float[Array, "J B T"],
    ) -> Float[Array, "J B D"]:
        total = average_over_levels(lambda at: self._moments(projection, at, *scores.cache), level, alpha, beta)
        if self.basis is None:
            return total.sum(axis=-2)
        return jnp.einsum("jbke,kde->jbd", total, self.basis, precision=jax.lax.Precision.HIGHEST)

    def least_variance(self, level: Level) -> Float[Array, "B T"]:
        return level.a * level.a * self.spectrum.min() + level.b * level.b

    def _variance(self, at: Level) -> Float[Array, "B K D"]:
        """Return the eigenvalues of V = a^2 S + b^2 I."""
        a, b = at.a[:, None, None], at.b[:, None, None]
        return a * a * self.spectrum[None] + b * b

    def _log_evidence(
        self,
        projection: tuple[Array, Array],
        at: Level,
        reference: Float[Array, "B K D"],
        log_size: Float[Array, "B K"],
    ) -> Float[Array, "B K"]:
        """Return log(weight x density) of every component, relative to the normaliser of the first at the reference."""
        variance = self._variance(at)
        centred = projection[0] - at.a[:, None, None] * projection[1][None]
        log_p = -0.5 * (centred * centred / variance + log_ratio(variance, reference)).sum(-1)
        return log_p + jnp.log(self.weights)[None] - (log_size - log_size[:, :1])

    def _moments(self, projection: tuple[Array, Array], at: Level, *reference: Array) -> tuple[Array, Array]:
        """Return the parts of D_t and R_t that each component adds, in its own basis, [B, K, D]."""
        probability = jax.nn.softmax(self._log_evidence(projection, at, *reference), axis=-1)[..., None]
        a, b = at.a[:, None, None], at.b[:, None, None]
        whitened = probability * (projection[0] - a * projection[1][None]) / self._variance(at)
        return probability * projection[1][None] + a * self.spectrum[None] * whitened, b * b * whitened


@pytree(data=("means", "vars", "weights", "spectrum", "basis"), static=("event_shape",))
class Gaussian(Mixture):
    """A Gaussian law ``N(mean, var)``: the mixture of one component.

    Attributes (besides those of Mixture, with K = 1):
        mean: [*event].
        var: variances, [*event] (diagonal), or the covariance, [D, D].
    """

    def __init__(self, mean: Any, var: Any) -> None:
        """Build a Gaussian; a scalar ``var`` is the same variance in every direction.

        Raises:
            ValueError: if shapes disagree, a variance is negative, the covariance is not symmetric positive
                semi-definite, or an entry is not finite.
        """
        mean = checks.array("Gaussian.mean", mean, at_least=1)
        var = checks.array("Gaussian.var", var)
        if var.ndim == 0:
            var = jnp.broadcast_to(var, mean.shape)
        super().__init__(mean[None], var[None])

    @property
    def mean(self) -> Float[Array, "*event"]:
        """Mean, [*event]."""
        return self.means[0]

    @property
    def var(self) -> Float[Array, "..."]:
        """Variances, [*event], or covariance, [D, D]."""
        return self.vars[0]


def _eigenbasis(owner: str, vars: Float[Array, "K ..."], means: Float[Array, "K *event"]) -> tuple[Array, Array | None]:
    """Return eigenvalues [K, D] and eigenvectors [K, D, D] (None for diagonal covariances)."""
    count, dim = len(means), int(np.prod(means.shape[1:]))
    exact = np.asarray(vars, np.float64)
    if vars.shape == means.shape:
        _refuse_negative(owner, exact)
        return vars.reshape(count, dim), None
    if vars.shape != (count, dim, dim):
        raise UserError(
            f"{owner}.shape = {list(vars.shape)}: must be {list(means.shape)}, that of the means (variances), or "
            f"{[count, dim, dim]} (covariances)"
        )
    size = np.abs(exact).max()
    asymmetry = np.abs(exact - np.swapaxes(exact, 1, 2)).max()
    if asymmetry > _ROUNDING * size:
        raise UserError(f"{owner}: must be symmetric covariances, but are off by {asymmetry:.2g}")
    spectrum, basis = np.linalg.eigh(exact)
    _refuse_negative(owner, spectrum + _ROUNDING * size)
    return jnp.asarray(np.maximum(spectrum, 0.0), vars.dtype), jnp.asarray(basis, vars.dtype)


def _refuse_negative(owner: str, variances: np.ndarray) -> None:
    if variances.min() < 0.0:
        raise UserError(f"{owner}: the smallest variance is {variances.min():.4g}; none must be negative")
