"""Validation of what only samplers are given: fields, keys, and data in model space."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from geonoise_jax.checks import refused, shape
from geonoise_jax.errors import UserError
from geonoise_jax.fields import Field


def field(value: Any) -> None:
    """Require a Field that jitted functions take.

    Raises:
        ValueError: naming what was given.
    """
    if not isinstance(value, Field):
        wanted = "a Field, with process, blind and event_shape, such as an ExactField or a NetworkField"
        raise refused("field", value, wanted)
    if jax.tree_util.all_leaves([value]):
        kind = type(value).__name__
        raise UserError(f"field: {kind} must be a pytree; decorate it with jax.tree_util.register_dataclass")


def key(value: Any) -> None:
    """Require one PRNG key, typed or as jax's old keys of uint32 words.

    Raises:
        ValueError: naming what was given.
    """
    dtype = getattr(value, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and value.shape == ()
    if not typed and not (dtype == np.uint32 and value.ndim == 1):
        raise refused("key", value, "one PRNG key, such as jax.random.key(0)")


def labels(name: str, value: Any, num: int) -> None:
    """Require one class for each of ``num`` samples.

    Raises:
        ValueError: if they are no integers, or not as many.
    """
    classes = value if isinstance(value, jax.Array) else np.asarray(value)
    if not jnp.issubdtype(classes.dtype, jnp.integer):
        raise refused(name, classes, f"integers, [{num}], one class for each sample")
    shape(name, classes, (num,))


def model_space(
    name: str, values: Shaped[np.ndarray | Array, "*shape"], wanted: tuple[int | str, ...] | None = None
) -> None:
    """Require floats, the values of model space; integers are stored values of some data set, of another range.

    Args:
        name: the argument.
        values: what was given.
        wanted: its shape; None for any.

    Raises:
        ValueError: naming the argument, and its dtype with its range where that is known, or its shape.
    """
    array = values if isinstance(values, jax.Array) else np.asarray(values)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        known = array.size and not isinstance(array, jax.core.Tracer)
        found = f", {array.min()}..{array.max()}" if known else ""
        raise UserError(
            f"{name}.dtype = {array.dtype}{found}: must be floats, values of model space (``Arrays.to_model`` brings "
            "the stored values of a data set there)"
        )
    if wanted is not None:
        shape(name, array, wanted)
