"""Few shapes of arrays, so that what is compiled for one process or number of queries serves others."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Points of the grids on which a prior is looked at once, and the smallest number on which anything is computed.
GRID, LEAST = 20_001, 4096

Result = TypeVar("Result")


def few_sizes(least: float) -> int:
    """Return the next of 1, 2, 3, 4, 6, 8, 12, ..."""
    power = 2 ** max(0, math.ceil(math.log2(max(least, 1.0))))
    return 3 * power // 4 if power >= 4 and 3 * power // 4 >= least else power


def elementwise(function: Callable[[Array], Result], values: Float[Array, "*shape"], least: int = LEAST) -> Result:
    """Return ``function(values)``, a pytree of arrays of their shape, computed on one of few sizes.

    Only outside of jitted functions, where each operation is compiled by itself, and on one device; at least on
    ``least`` values.
    """
    if isinstance(values, jax.core.Tracer) or len(values.devices()) > 1:
        return function(values)
    padded = jnp.pad(values.ravel(), (0, few_sizes(max(values.size, least)) - values.size), mode="edge")
    return jax.tree.map(lambda each: each[: values.size].reshape(values.shape), function(padded))
