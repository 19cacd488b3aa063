"""One mixture of Gaussians, as our exact field and, written out again in torch, as what a peer calls its model."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Array, Float, Key

from geonoise_jax.exact import Marginal, Mixture
from geonoise_jax.fields import ExactField
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import Schedule
from geonoise_jax.process.targets import Target
from geonoise_jax.process.times import Uniform
from geonoise_jax.sampling import stepping

BATCH = 5
EVENT = (2, 3)
_rng = np.random.default_rng(20)
MEANS = _rng.normal(size=(3, *EVENT))
VARIANCES = _rng.uniform(0.02, 0.4, size=(3, *EVENT))
WEIGHTS = np.array([0.5, 0.2, 0.3])
NOISE = _rng.normal(size=(BATCH, *EVENT))


def exact_field(schedule: Schedule, target: Target, *, blind: bool = False) -> ExactField:
    """Our exact field of the mixture."""
    law = Uniform(schedule.t_min, schedule.t_max)
    return ExactField(Marginal(Mixture(MEANS, VARIANCES, WEIGHTS), Process(schedule, target), law), blind=blind)


def estimates(u: torch.Tensor, a: torch.Tensor | float, b: torch.Tensor | float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return E[x | u] and E[eps | u] at u = a x + b eps, without looking at our code.

    ``x = m + a S V^-1 (u - a m)`` and ``eps = b V^-1 (u - a m)`` with V = a^2 S + b^2, averaged over the components by
    their posterior probabilities.
    """
    means, variances, weights = (torch.as_tensor(each) for each in (MEANS, VARIANCES, WEIGHTS))
    total = a * a * variances + b * b
    white = (u[:, None] - a * means) / total
    log_density = -0.5 * (white**2 * total + torch.log(total)).flatten(2).sum(-1)
    posterior = torch.softmax(torch.log(weights) + log_density, dim=1)[:, :, None, None]
    x = (posterior * (means + a * variances * white)).sum(1)
    return x, b * (posterior * white).sum(1)


def tensor(array: Array | np.ndarray) -> torch.Tensor:
    """An array as the peer's, which shares no memory with ours."""
    return torch.as_tensor(np.array(array))


def start(scale: float = 1.0) -> tuple[Float[Array, "b *event"], torch.Tensor]:
    """The noise that sampling starts from, for us and for the peer."""
    return jnp.asarray(scale * NOISE), torch.as_tensor(scale * NOISE)


def keys() -> Key[Array, "b"]:
    """One PRNG key a sample."""
    return jax.random.split(jax.random.key(7), BATCH)


def fresh_noise(number: int) -> list[torch.Tensor]:
    """What our samplers draw from :func:`keys` in their steps, as the peer's noise."""
    like = jnp.asarray(NOISE)
    return [tensor(stepping.fresh_noise(keys(), jnp.asarray(i), like)) for i in range(number)]
