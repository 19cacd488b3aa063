"""Validation of integer arguments."""

from __future__ import annotations

import operator
from typing import Any

from geonoise_jax.errors import UserError


def integer_at_least(name: str, value: Any, lowest: int) -> int:
    """Return `value` as an int.

    Raises:
      ValueError: `value` is no integer (Python, NumPy or a concrete 0-d array) or is below `lowest`.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise UserError(f"{name} must be an integer >= {lowest}, got {value!r}") from None
    if number < lowest:
        raise UserError(f"{name} must be an integer >= {lowest}, got {number}")
    return number
