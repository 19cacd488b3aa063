r"""How well an observation tells its own noise level: the width of the posterior, and errors too small to subtract.

Where a target is an affine function of u and x whose coefficients do not know t, ``r = alpha u + beta x`` (the Signal,
EqM with g = t on the Linear schedule), the blind and the conditional field differ only by what they believe of x:

(C1)  f* - f_t = beta (E[x | u] - D_t(u)) = beta sum_k (W_k - w_k) (x_k - x_*)

with W_k and w_k the probabilities of the points of a finite set given u, and given u and t, and x_* any of the points.
Near a datum x_* all other probabilities are tiny: in double precision the difference itself ends at 1e-16, while (C1)
is right to its last digits as long as its logarithm is a number.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from jaxtyping import ArrayLike as ArrayLike

from geonoise_jax.checks import refused
from geonoise_jax.errors import UserError
from geonoise_jax.exact import FiniteSet, Marginal
from geonoise_jax.exact.results import Posterior
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import Schedule

_PROBES = 64
_SAME = 1e-6
# Of the accuracy of one point's evidence, which a set's own quadrature does not need as sharp.
_SLACK = 100.0


class Width(NamedTuple):
    """The posterior of the noise scale b of observations.

    Attributes:
        mean: ``E[b | u]``.
        relative: ``sd(b) / E[b]``, near a datum about ``1 / sqrt(2 m)``, see ``local.posterior_width``.
    """

    mean: Float[Array, "B"]
    relative: Float[Array, "B"]


def noise_width(marginal: Marginal, u: Float[Array, "B *event"]) -> Width:
    """Return mean and relative width of the noise scale that observations may have.

    Raises:
        ValueError: if u has another event shape.
    """
    return width_of(marginal.posterior(u), marginal.process.schedule)


def width_of(posterior: Posterior, schedule: Schedule) -> Width:
    """Return mean and relative width of the noise scale, of a posterior of the noise level that is known already."""
    b = schedule.scales(posterior.t)[1]
    mean = (posterior.weights * b).sum(-1)
    var = (posterior.weights * jnp.square(b - mean[:, None])).sum(-1)
    return Width(mean, jnp.sqrt(var) / mean)


def affine_target(process: Process) -> tuple[float, float] | None:
    """Return (alpha, beta) if the target is ``alpha u + beta x`` at every t, or None."""
    schedule = process.schedule
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        t = jnp.asarray(np.geomspace(max(schedule.t_min, 1e-6 * schedule.t_max), schedule.t_max, _PROBES))
        k = process.coeffs(jnp.clip(t, schedule.t_min, schedule.t_max))
        alpha, beta = np.asarray(k.d / k.b), np.asarray(k.c - k.d * k.a / k.b)
    if max(np.ptp(alpha), np.ptp(beta)) > _SAME * max(np.abs(alpha).max(), np.abs(beta).max()):
        return None
    return float(np.median(alpha)), float(np.median(beta))


def log_estimation_error(
    marginal: Marginal, u: Float[Array, "B *event"], t: Float[ArrayLike, "*#B"]
) -> Float[Array, "B"]:
    """Return ``log |f* - f_t|`` of a finite set without cancellation, (C1).

    Args:
        marginal: of a finite set and a target that is affine in u and x.
        u: observations.
        t: their noise levels, one each or one for all.

    Raises:
        ValueError: if the distribution is no finite set on one device, or the target is not affine in u and x.
    """
    law, affine = marginal.distribution, affine_target(marginal.process)
    if not isinstance(law, FiniteSet) or law.mesh is not None:
        raise refused("marginal.distribution", law, "a FiniteSet on one device")
    if affine is None:
        raise UserError(
            f"marginal.process = {marginal.process}: must have a target that is alpha u + beta x with constants, such "
            "as the Signal; of others, take marginal.estimation_error"
        )
    log_blind, log_known = log_probabilities(marginal, u, t)
    points = law.points.reshape(law.num_points, -1)
    # Seen from the likeliest point, which then carries none of the difference.
    offset = points[None] - points[jnp.argmax(log_known, axis=1)][:, None]
    top = jnp.where((offset != 0.0).any(-1), jnp.maximum(log_blind, log_known), -jnp.inf).max(1, keepdims=True)
    weights = jnp.exp(log_blind - top) - jnp.exp(log_known - top)
    weights = jnp.where((offset != 0.0).any(-1), weights, 0.0)
    length = jnp.sqrt(jnp.square((weights[:, :, None] * offset).sum(1)).sum(-1))
    return jnp.log(length) + top[:, 0] + float(np.log(abs(affine[1])))


def log_probabilities(
    marginal: Marginal, u: Float[Array, "B *event"], t: Float[ArrayLike, "*#B"]
) -> tuple[Float[Array, "B N"], Float[Array, "B N"]]:
    """Return the log probabilities of the points of a finite set given u, and given u and t, equation (34)."""
    law = marginal.distribution
    if not isinstance(law, FiniteSet):
        raise refused("marginal.distribution", law, "a FiniteSet")
    prior, accuracy = marginal.prior, _SLACK * marginal.accuracy_in(u.dtype)
    blind, known = [], []
    for point in law.points:
        one = Marginal(FiniteSet(point[None]), prior.process, prior.time_law, prior.loss_weight, accuracy=accuracy)
        blind.append(one.log_density(u))
        known.append(one.log_density_at(u, t))
    weights = law.log_weight[None, : law.num_points]
    first, second = (jax.nn.log_softmax(jnp.stack(each, axis=1) + weights, axis=1) for each in (blind, known))
    return first, second
