r"""What is read off an integral over the noise level: its posterior, the terms of the blind field, the blind error.

Equations of "The Geometry of Noise" (arXiv:2602.18428); every field is ``alpha D_t + beta R_t``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from geonoise_jax.exact import errors
from geonoise_jax.exact.errors import Error
from geonoise_jax.exact.integral import Coefficients, Integral
from geonoise_jax.exact.results import Analysis, Conditional, Decomposition, Posterior, posterior_mode
from geonoise_jax.process.process import Coeffs, Process, expand

Pair = Callable[[Coeffs], Coefficients]
SIGNAL: Pair = lambda k: (jnp.ones_like(k.b), jnp.zeros_like(k.b))  # noqa: E731
ENERGY_GRAD: Pair = lambda k: (jnp.zeros_like(k.b), 1.0 / (k.b * k.b))  # noqa: E731
TARGET: Pair = lambda k: (k.c, k.d / k.b)  # noqa: E731
# lambda grad E_t, by (15).
ALONG_RESIDUAL: Pair = lambda k: (jnp.zeros_like(k.b), k.d / k.b - k.c / k.a)  # noqa: E731
_ALWAYS = (TARGET, ENERGY_GRAD, SIGNAL)


def posterior(integral: Integral, error: Error, is_discrete: bool) -> Posterior:
    """Return the posterior p(t | u) of an integral, equation (36), with the estimated error of its moments."""
    t, weights = integral.nodes.t, integral.weights
    log_density = integral.nodes.log_prior - integral.nodes.log_rate + integral.scores.relative
    log_density += (integral.scores.offset - integral.log_density)[:, None]
    if integral.spacing is not None:
        log_density = jnp.where(integral.spacing > 0.0, log_density, -jnp.inf)
    mean = (weights * t).sum(-1)
    var = (weights * (t - mean[:, None]) ** 2).sum(-1)
    mode = posterior_mode(t, log_density)
    if is_discrete:
        mode = jnp.take_along_axis(t, jnp.argmax(log_density, axis=1)[:, None], axis=1)[:, 0]
    return Posterior(t, weights, jnp.exp(log_density), mean, var, mode, error.sum(axis=0))


def trimmed(posterior: Posterior) -> Posterior:
    """Leave out nodes that no query uses (not inside a jitted function, where shapes are fixed)."""
    if isinstance(posterior.weights, jax.core.Tracer):
        return posterior
    used = np.flatnonzero((np.asarray(posterior.density) > 0.0).any(axis=0))
    kept = slice(used[0], used[-1] + 1) if len(used) else slice(None)
    return posterior._replace(**{name: getattr(posterior, name)[:, kept] for name in ("t", "weights", "density")})


def decomposition_error(integral: Integral) -> Error:
    """Return the estimated relative error of mean gain and mean drift scale, the larger."""
    k = integral.nodes.coeffs
    return errors.worst(errors.of_average(integral, k.b / k.a * k.det), errors.of_average(integral, k.c / k.a))


def errors_of(integral: Integral, pairs: Sequence[Coefficients], fields: Float[Array, "J B D"]) -> dict[str, Error]:
    """Return the estimated relative errors of all that :func:`blind` returns, by its names.

    Args:
        integral: at the observations.
        pairs: coefficients of TARGET, ENERGY_GRAD, SIGNAL and, where the mean gain exists, ALONG_RESIDUAL at the nodes.
        fields: their averages.
    """
    of_fields = (errors.of_field(integral, pair, field) for pair, field in zip(pairs, fields, strict=True))
    b = integral.nodes.coeffs.b
    found = dict(zip(("field", "energy_grad", "denoiser"), of_fields, strict=False))
    found |= {
        "log_density": errors.of_log_density(integral, fields.shape[-1]),
        "posterior": errors.of_posterior(integral),
    }
    found["inverse_noise"] = errors.of_average(integral, 1.0 / b)
    found["inverse_noise2"] = errors.of_average(integral, 1.0 / (b * b))
    if len(pairs) > len(_ALWAYS):
        found["decomposition"] = decomposition_error(integral)
    return found


def decomposition(
    integral: Integral,
    flat: Float[Array, "B D"],
    field: Float[Array, "B D"],
    energy_grad: Float[Array, "B D"],
    along_residual: Float[Array, "B D"],
) -> Decomposition:
    """Return the terms of equation (14).

    Args:
        integral: at the observations.
        flat: the observations.
        field: average of TARGET.
        energy_grad: average of ENERGY_GRAD.
        along_residual: average of ALONG_RESIDUAL, natural gradient and transport correction together.
    """
    k = integral.nodes.coeffs
    gain = (integral.weights * (k.b / k.a) * k.det).sum(-1)
    drift_scale = (integral.weights * (k.c / k.a)).sum(-1)
    natural, drift = gain[:, None] * energy_grad, drift_scale[:, None] * flat
    return Decomposition(field, natural, along_residual - natural, drift, gain, drift_scale, energy_grad)


def blind(
    integral: Integral,
    flat: Float[Array, "B D"],
    fields: Float[Array, "J B D"],
    found: dict[str, Error],
    is_discrete: bool,
) -> Analysis:
    """Return all that needs no noise level.

    Args:
        integral: at the observations.
        flat: the observations.
        fields: averages of TARGET, ENERGY_GRAD, SIGNAL and, where the mean gain exists, ALONG_RESIDUAL.
        found: estimated errors by quantity.
        is_discrete: whether the prior is.
    """
    field, energy_grad, denoiser, *along = fields
    b = integral.nodes.coeffs.b
    return Analysis(
        log_density=integral.log_density,
        energy_grad=energy_grad,
        field=field,
        denoiser=denoiser,
        inverse_noise=(integral.weights / b).sum(-1),
        inverse_noise2=(integral.weights / (b * b)).sum(-1),
        posterior=posterior(integral, found["posterior"], is_discrete),
        errors={name: error.sum(axis=0) for name, error in found.items()},
        decomposition=decomposition(integral, flat, field, energy_grad, *along) if along else None,
    )


def conditional(
    process: Process,
    blind: Analysis,
    flat: Float[Array, "B D"],
    t: Float[Array, "B"],
    fields: Float[Array, "3 B D"],
) -> Conditional:
    """Return all that needs the noise level.

    Args:
        process: schedule and target.
        blind: the analysis of the observations without it.
        flat: the observations.
        t: their noise levels.
        fields: TARGET, SIGNAL and ENERGY_GRAD at t.
    """
    field, denoiser, energy_grad = fields
    mu, nu = process.velocity_coeffs(t)
    velocity, blind_velocity = (expand(mu, flat) * flat + expand(nu, flat) * f for f in (field, blind.field))
    error = norm(blind.field - field)
    gap = process.coeffs(t).b * blind.inverse_noise - 1.0
    return Conditional(field, denoiser, energy_grad, error, gap, velocity, blind_velocity, jnp.abs(nu) * error)


def norm(values: Float[Array, "B *event"]) -> Float[Array, "B"]:
    """Return the Euclidean norm of every event."""
    return jnp.sqrt((values.reshape(len(values), -1) ** 2).sum(-1))


def shaped(result: Analysis, shape: tuple[int, ...]) -> Analysis:
    """Give all fields the shape of the observations."""

    def shaped_fields(parts: Any) -> Any:
        return None if parts is None else type(parts)(*(x.reshape(shape) if x.ndim > 1 else x for x in parts))

    fields = {name: getattr(result, name).reshape(shape) for name in ("energy_grad", "field", "denoiser")}
    groups = {name: shaped_fields(getattr(result, name)) for name in ("decomposition", "conditional")}
    return result._replace(**fields, **groups, posterior=trimmed(result.posterior))
