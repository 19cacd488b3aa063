"""Inverse uses of a field: denoising at a known or unknown level, and scoring inputs by their energy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float
from jaxtyping import ArrayLike as ArrayLike

from geonoise_jax.errors import UserError
from geonoise_jax.fields import Field
from geonoise_jax.process.targets import Signal
from geonoise_jax.sampling import given
from geonoise_jax.sampling.blind import check_blind, evaluate_blind
from geonoise_jax.sampling.readout import level_of_residual


def denoise(
    field: Field, u: Float[Array, "b *event"], t: Float[ArrayLike, "*#b"] | None = None
) -> Float[Array, "b *event"]:
    """Return the estimate of x in u = a x + b eps from one field evaluation, equation (61).

    Args:
        field: any Field if t is given, a blind one otherwise.
        u: observations.
        t: their noise levels, a scalar or one each; None if they are unknown. They are then read off the residual
            (:mod:`geonoise_jax.sampling.readout`), which the Signal target does not need.

    Raises:
        ValueError: if u are no floats, or t is unknown and the field needs it, or its residual does not determine it.
    """
    given.model_space("u", u)
    if t is not None:
        times = jnp.broadcast_to(jnp.asarray(t, u.dtype), (len(u),))
        return field.process.recover(u, field(u, times), times)[0]
    check_blind(field)
    r = evaluate_blind(field, u)
    if isinstance(field.process.parameterization, Signal):
        return r
    return field.process.recover(u, r, level_of_residual(field.process, u, r))[0]


@runtime_checkable
class Energy(Protocol):
    """A model with an energy: an exact marginal, ``energy(u)``, or an energy network, ``energy(u, t)``."""

    @property
    def energy(self) -> Callable[..., Float[Array, "b"]]:
        """The method: energy of each input, in nats up to a constant."""


def energy_score(
    model: Energy, u: Float[Array, "b *event"], t: Float[ArrayLike, "*#b"] | None = None
) -> Float[Array, "b"]:
    """Return how far inputs are out of the distribution: their energy, which is high where data are unlikely.

    Scores of one model compare with each other; a threshold, or a ranking, is the caller's.

    Args:
        model: anything with an energy.
        u: inputs.
        t: noise level at which a conditional energy is asked for, a scalar or one each; None for a marginal energy.

    Raises:
        ValueError: if the model has no energy, or u are no floats.
    """
    given.model_space("u", u)
    if not isinstance(model, Energy):
        raise UserError(f"model = {type(model).__name__}: must have a method energy, as exact marginals have")
    if t is None:
        return model.energy(u)
    return model.energy(u, jnp.broadcast_to(jnp.asarray(t, u.dtype), (len(u),)))
