"""What the samplers on a time grid share: one field evaluation at one time, the loop over the grid, fresh noise.

A grid is ``steps + 1`` decreasing times (``process.grids``); in every step t is where the observation is and s < t
where it goes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from geonoise_jax.fields import Field
from geonoise_jax.process.keys import threefry

State = TypeVar("State", bound=PyTree)


class Interval(NamedTuple):
    """One step of a grid.

    Attributes:
        number: which step it is, from 0.
        t: time at its beginning.
        s: time at its end.
    """

    number: Int[Array, ""]
    t: Float[Array, ""]
    s: Float[Array, ""]


def evaluate(field: Field, u: Float[Array, "b *event"], t: Float[Array, ""]) -> Float[Array, "b *event"]:
    """Return the field at one time for the whole batch."""
    return field(u, jnp.full(u.shape[0], t, u.dtype))


def march(
    step: Callable[[State, Interval], State],
    state: State,
    times: Float[Array, "times"],
    *,
    keep: Callable[[State], Any] = lambda _: None,
) -> tuple[State, Any]:
    """Fold ``step`` over the intervals of a grid under ``lax.scan``.

    Returns:
        The last state, and ``keep(state)`` after every step, stacked.
    """

    def body(state: State, interval: Interval) -> tuple[State, Any]:
        state = step(state, interval)
        return state, keep(state)

    return jax.lax.scan(body, state, Interval(jnp.arange(len(times) - 1), times[:-1], times[1:]))


def fresh_noise(
    keys: Key[Array, "b"], number: Int[Array, ""], like: Float[Array, "b *event"]
) -> Float[Array, "b *event"]:
    """Return standard normal noise; that of sample i depends on ``keys[i]`` and the number of the draw alone.

    Keys of any kind: see ``process.keys``.
    """

    def draw(key: Key[Array, ""]) -> Float[Array, "*event"]:
        return jax.random.normal(jax.random.fold_in(key, number), like.shape[1:], like.dtype)

    return jax.vmap(draw)(threefry(keys))
