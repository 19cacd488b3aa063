"""Validation shared by the frozen dataclasses of this room."""

from __future__ import annotations

import math
from typing import Any

from geonoise_jax.errors import UserError


def real(owner: object, field: str, *, low: float = -math.inf, high: float = math.inf, open_low: bool = False) -> float:
    """Validate one field of a frozen dataclass as a finite real in ``[low, high]`` and store it as a float.

    Args:
        owner: the dataclass instance whose ``field`` is checked and overwritten.
        field: attribute name, as it appears in the error.
        low: smallest value allowed (excluded if ``open_low``).
        high: largest value allowed.
        open_low: exclude ``low`` itself.

    Returns:
        The value as a Python float.

    Raises:
        ValueError: if the value is not a finite real number or lies outside the range.
    """
    value: Any = getattr(owner, field)
    number = _as_float(value)
    inside = number is not None and (low < number if open_low else low <= number) and number <= high
    if number is None or not inside:
        bracket = "(" if open_low or low == -math.inf else "["
        closing = ")" if high == math.inf else "]"
        name = f"{type(owner).__name__}.{field}"
        raise UserError(f"{name} = {value!r}: must be a finite number in {bracket}{low:g}, {high:g}{closing}")
    object.__setattr__(owner, field, number)
    return number


def integer(owner: object, field: str, *, low: int) -> int:
    """Validate one field of a frozen dataclass as an integer ``>= low`` and store it as an int.

    Raises:
        ValueError: if the value is not integral or is below ``low``.
    """
    value: Any = getattr(owner, field)
    number = _as_float(value)
    if number is None or number != int(number) or number < low:
        raise UserError(f"{type(owner).__name__}.{field} = {value!r}: must be an integer >= {low}")
    object.__setattr__(owner, field, int(number))
    return int(number)


def ordered(owner: object, low_field: str, high_field: str) -> None:
    """Require ``low_field < high_field``.

    Raises:
        ValueError: if the two fields of ``owner`` are not strictly increasing.
    """
    low, high = getattr(owner, low_field), getattr(owner, high_field)
    if not low < high:
        name = type(owner).__name__
        raise UserError(f"{name}.{low_field} = {low!r}: must be smaller than {name}.{high_field} = {high!r}")


def _as_float(value: Any) -> float | None:
    if isinstance(value, (bool, str)):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
