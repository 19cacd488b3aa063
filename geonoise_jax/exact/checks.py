"""Validation of the arrays that define a distribution."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from geonoise_jax.checks import refused, shape
from geonoise_jax.errors import UserError

_TOLERANCE = 1e-5


def array(owner: str, value: Any, *, ndim: int | None = None, at_least: int = 0) -> Float[Array, "..."]:
    """Return ``value`` as a floating-point array.

    Args:
        owner: the field's name in errors.
        value: anything that becomes a numeric array.
        ndim: exact number of axes, if given.
        at_least: smallest number of axes.

    Raises:
        ValueError: if it is empty, not numeric, has entries that are not finite, or the wrong number of axes.
    """
    if not hasattr(value, "dtype"):
        try:
            value = np.asarray(value, float)
        except (TypeError, ValueError):
            raise refused(owner, value, "an array of real numbers") from None
    values = jnp.asarray(value)
    if jnp.issubdtype(values.dtype, jnp.integer):
        values = values.astype(jnp.result_type(float))
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise refused(owner, values, "real numbers")
    if (ndim is not None and values.ndim != ndim) or values.ndim < at_least:
        allowed = f"{ndim}" if ndim is not None else f"at least {at_least}"
        raise UserError(f"{owner}.shape = {list(values.shape)}: must have {allowed} axes")
    if values.size == 0:
        raise UserError(f"{owner}.shape = {list(values.shape)}: must not be empty")
    if not bool(jnp.isfinite(values).all()):
        bad = int(values.size - jnp.isfinite(values).sum())
        raise UserError(f"{owner}: {bad} entries are not finite; all must be numbers")
    return values


def weights(owner: str, value: Any, count: int, dtype: Any) -> Float[Array, "count"]:
    """Return probabilities, uniform if ``value`` is None.

    Raises:
        ValueError: if there are not ``count`` of them, one is negative, or they do not sum to one.
    """
    if value is None:
        return jnp.full((count,), 1.0 / count, dtype)
    exact = np.asarray(value, np.float64)
    shape(owner, exact, (count,))
    if not np.all(exact >= 0.0):
        raise UserError(f"{owner}: the smallest is {exact.min()}; none must be negative")
    if not abs(exact.sum() - 1.0) <= _TOLERANCE:
        raise UserError(f"{owner}: the sum is {exact.sum():.8g}; must be one")
    return jnp.asarray(exact / exact.sum(), dtype)


def frame(owner: str, value: Any) -> Float[Array, "D d"]:
    """Return a [D, d] matrix, d <= D.

    Raises:
        ValueError: if its columns are not orthonormal.
    """
    columns = array(owner, value, ndim=2)
    if columns.shape[1] > columns.shape[0]:
        raise UserError(f"{owner}.shape = {list(columns.shape)}: must be [D, d] with d <= D")
    exact = np.asarray(columns, np.float64)
    error = np.abs(exact.T @ exact - np.eye(exact.shape[1])).max()
    if error > _TOLERANCE:
        raise UserError(
            f"{owner}: must have orthonormal columns, but is off by {error:.2g}; take Q of its QR decomposition"
        )
    return columns
