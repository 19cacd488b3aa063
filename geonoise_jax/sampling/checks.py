"""Validation of what samplers are given: their options, Python numbers fixed when one is compiled, and data."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from geonoise_jax.errors import UserError


def real(
    name: str,
    value: float,
    *,
    low: float = 0.0,
    high: float = math.inf,
    open_low: bool = False,
    infinite: bool = False,
) -> None:
    """Require a real number in ``[low, high]``, or in ``(low, high]`` if ``open_low``; infinity only if ``infinite``.

    Raises:
        ValueError: naming the option, its value and what is allowed.
    """
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    within = number and (low < value if open_low else low <= value) and value <= high
    if not within or (math.isinf(value) and not infinite):
        opening, closing = "(" if open_low else "[", "]" if infinite or not math.isinf(high) else ")"
        raise UserError(f"{name} = {value!r}: must be a number in {opening}{low:g}, {high:g}{closing}")


def fraction(name: str, value: float) -> None:
    """Require a number in [0, 1).

    Raises:
        ValueError: naming the option and its value.
    """
    real(name, value)
    if value >= 1.0:
        raise UserError(f"{name} = {value!r}: must be a number in [0, 1)")


def integer(name: str, value: int, *, low: int) -> None:
    """Require an integer of at least ``low``.

    Raises:
        ValueError: naming the option, its value and what is allowed.
    """
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < low:
        raise UserError(f"{name} = {value!r}: must be an integer >= {low}")


def truth(name: str, value: bool) -> None:
    """Require True or False.

    Raises:
        ValueError: naming the option, its value and what is allowed.
    """
    if not isinstance(value, bool):
        raise UserError(f"{name} = {value!r}: must be True or False")


def choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Require one of the allowed names.

    Raises:
        ValueError: naming the option, its value and what is allowed.
    """
    if value not in allowed:
        raise UserError(f"{name} = {value!r}: must be one of {', '.join(allowed)}")


def without_effect(why: str, unused: Mapping[str, tuple[Any, Any]]) -> None:
    """Require that options which have no effect keep their defaults.

    Args:
        why: what makes them have none.
        unused: value and default of each.

    Raises:
        ValueError: naming the option, its value and why it has no effect.
    """
    for name, (value, default) in unused.items():
        if value != default:
            raise UserError(f"{name} = {value!r}: has no effect with {why}; leave it out")


def model_space(name: str, values: Shaped[np.ndarray | Array, "*shape"]) -> None:
    """Require floats, the values of model space; integers are stored values of some data set, of another range.

    Raises:
        ValueError: naming the argument and its dtype, and its range where it is known.
    """
    array = values if isinstance(values, jax.Array) else np.asarray(values)
    if jnp.issubdtype(array.dtype, jnp.floating):
        return
    known = array.size and not isinstance(array, jax.core.Tracer)
    found = f", {array.min()}..{array.max()}" if known else ""
    raise UserError(
        f"{name}: has dtype {array.dtype}{found}; must be floats, values of model space (``Arrays.to_model`` brings "
        "the stored values of a data set there)"
    )
