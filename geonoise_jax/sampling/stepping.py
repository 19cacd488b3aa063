"""What the samplers on a time grid share: one field evaluation at one time, the loop over the grid, fresh noise.

A grid is ``steps + 1`` decreasing times (``process.grids``); in every step t is where the observation is and s < t
where it goes.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from geonoise_jax.fields import Field
from geonoise_jax.process.keys import threefry

State = TypeVar("State", bound=PyTree)
_PATHS: contextvars.ContextVar[list[Array] | None] = contextvars.ContextVar("paths", default=None)


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


def march(step: Callable[[State, Interval], State], state: State, times: Float[Array, "times"]) -> State:
    """Fold ``step`` over the intervals of a grid under ``lax.scan``.

    Args:
        step: moves a state over one interval. The observation is the first array of a state.
        state: at ``times[0]``.
        times: decreasing times.

    Returns:
        The last state.
    """
    paths = _PATHS.get()

    def body(state: State, interval: Interval) -> tuple[State, list[Array]]:
        state = step(state, interval)
        return state, [] if paths is None else jax.tree.leaves(state)[:1]

    intervals = Interval(jnp.arange(len(times) - 1), times[:-1], times[1:])
    last, path = jax.lax.scan(body, state, intervals)
    if paths is not None:
        paths.append(jnp.concatenate([jax.tree.leaves(state)[0][None], *path]))
    return last


@contextlib.contextmanager
def recording(wanted: bool) -> Iterator[list[Float[Array, "times b *event"]]]:
    """Collect, if it is wanted, the observations at all times of the grid of every :func:`march` meanwhile.

    Otherwise they are not kept: for ``steps`` steps they take ``steps + 1`` times the memory of the samples.
    """
    paths: list[Float[Array, "times b *event"]] = []
    before = _PATHS.set(paths if wanted else None)
    try:
        yield paths
    finally:
        _PATHS.reset(before)


def fresh_noise(
    keys: Key[Array, "b"], number: Int[Array, ""], like: Float[Array, "b *event"]
) -> Float[Array, "b *event"]:
    """Return standard normal noise; that of sample i depends on ``keys[i]`` and the number of the draw alone.

    Keys of any kind: see ``process.keys``.
    """

    def draw(key: Key[Array, ""]) -> Float[Array, "*event"]:
        return jax.random.normal(jax.random.fold_in(key, number), like.shape[1:], like.dtype)

    return jax.vmap(draw)(threefry(keys))
