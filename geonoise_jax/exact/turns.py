"""Queries taken a few at a time, so that each few skips the levels at which none of its own has any weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax

from geonoise_jax.exact.projection import Projection

# Few enough that hardly any shares a turn with a query that needs more levels, and enough to fill vectors and threads.
_TURN, _SMALLEST, _LARGEST = 8, 4, 16

Rows = TypeVar("Rows")
Result = TypeVar("Result")


def in_turns(function: Callable[[Projection, Rows], Result], projection: Projection, rows: Rows) -> Result:
    """Return ``function(projection, rows)``, computed on a few queries after the other.

    Args:
        function: of queries that have nothing to do with each other.
        projection: of B queries.
        rows: a pytree of arrays [B, ...].

    Returns:
        A pytree of arrays [B, ...].
    """
    num, far = len(projection.centre), projection.far
    turn = _turn(num)
    if turn == num or far is None:
        return function(projection, rows)

    def one(few: tuple[Projection, jax.Array, Rows]) -> Result:
        own, product, its_rows = few
        return function(own._replace(far=far._replace(product=product)), its_rows)

    def cut(values: jax.Array) -> jax.Array:
        return values.reshape(num // turn, turn, *values.shape[1:])

    found = jax.lax.map(one, jax.tree.map(cut, (projection._replace(far=None), far.product, rows)))
    return jax.tree.map(lambda values: values.reshape(num, *values.shape[2:]), found)


def _turn(num: int) -> int:
    """Return a divisor of a number of queries that is near to the best size, or the number if it has none."""
    sizes = (size for size in range(_SMALLEST, _LARGEST + 1) if num % size == 0)
    return min(sizes, key=lambda size: abs(size - _TURN), default=num)
