"""What the samplers and read-outs of blind fields share."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from geonoise_jax.errors import UserError
from geonoise_jax.fields import Field


def running(state: Any, max_steps: int) -> Bool[Array, ""]:
    """Return whether a loop has samples that have not stopped, and steps left."""
    return state.active.any() & (state.step < max_steps)


def evaluate_blind(field: Field, u: Float[Array, "b *event"]) -> Float[Array, "b *event"]:
    """Return a blind field at u; t_min stands in for the noise level, which the field ignores."""
    return field(u, jnp.full(len(u), field.process.schedule.t_min, u.dtype))


def root_mean_square(r: Float[Array, "b *event"]) -> Float[Array, "b"]:
    """Return ``|r| / sqrt(D)`` of each sample."""
    return jnp.sqrt(jnp.square(r).reshape(len(r), -1).mean(-1))


def check_blind(field: Field) -> None:
    """Require a blind field.

    Raises:
        ValueError: if the field needs t.
    """
    if not field.blind:
        raise UserError("field.blind = False: must be True, as an autonomous sampler has no noise level to give")
