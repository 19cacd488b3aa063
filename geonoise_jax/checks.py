"""Validation of what users give, in one style: ``name = value: must be ...``.

Every check returns the value that it lets pass, as the type that it says, and raises a ``UserError`` that names the
argument, its value and what is allowed. Nothing heavy is imported here: arrays are known by ``shape`` and ``dtype``.
"""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from geonoise_jax.errors import UserError

_LONGEST = 80


def refused(name: str, value: Any, wanted: str) -> UserError:
    """Return the error of a value that is not what it must be, ``wanted``."""
    return UserError(f"{name} = {shown(value)}: must be {wanted}")


def real(
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    open_high: bool = False,
    infinite: bool = False,
) -> float:
    """Require a real number in ``[low, high]`` and return it as a float.

    Args:
        name: the argument, as its user knows it.
        value: what was given.
        low: smallest number allowed, excluded if ``open_low``.
        high: largest number allowed, excluded if ``open_high``.
        open_low, open_high: exclude the end.
        infinite: allow infinity; numbers that are no numbers (NaN) never pass.

    Raises:
        ValueError: if it is no number, or not in the range.
    """
    number = _as_float(value)
    inside = number is not None and (low < number if open_low else low <= number)
    inside = inside and number is not None and (number < high if open_high else number <= high)
    if number is None or not inside or (math.isinf(number) and not infinite):
        opening = "(" if open_low or (low == -math.inf and not infinite) else "["
        closing = ")" if open_high or (high == math.inf and not infinite) else "]"
        raise refused(name, value, f"a number in {opening}{low:g}, {high:g}{closing}")
    return number


def integer(name: str, value: Any, *, low: int) -> int:
    """Require an integer of at least ``low``, of Python or NumPy, and return it as an int.

    Raises:
        ValueError: if it is no integer (truth values and 4.0 are none), or smaller.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < low:
        raise refused(name, value, f"an integer >= {low}")
    return number


def several(name: str, values: Any, check: Callable[..., Any], **bounds: Any) -> tuple[Any, ...]:
    """Require a tuple or list of one or more values that a check lets pass, and return them as a tuple.

    Raises:
        ValueError: if it is none, is empty, or a value is refused.
    """
    if not isinstance(values, (tuple, list)) or not values:
        raise refused(name, values, "a tuple of one or more values")
    return tuple(check(name, value, **bounds) for value in values)


def increasing(
    name: str, values: Any, check: Callable[..., Any], *, wanted: str = "increasing", **bounds: Any
) -> tuple[Any, ...]:
    """Require :func:`several` values, each larger than the one before, and return them as a tuple.

    Raises:
        ValueError: as :func:`several`, or if they are not ``wanted``.
    """
    found = several(name, values, check, **bounds)
    if list(found) != sorted(set(found)):
        raise refused(name, values, wanted)
    return found


def truth(name: str, value: Any) -> bool:
    """Require True or False; a word such as "False" would count as true.

    Raises:
        ValueError: if it is anything else.
    """
    if not isinstance(value, bool):
        raise refused(name, value, "True or False")
    return value


def choice(name: str, value: Any, allowed: Iterable[str]) -> str:
    """Require one of the allowed words.

    Raises:
        ValueError: if it is none of them; the message has the nearest one, or all of them if none is near.
    """
    known = tuple(allowed)
    if isinstance(value, str) and value in known:
        return value
    if near := nearest(value, known):
        raise UserError(f"{name} = {shown(value)}: unknown; did you mean {near!r}?")
    raise refused(name, value, f"one of {', '.join(known)}")


def nearest(word: Any, known: Sequence[str]) -> str | None:
    """Return the known word that is nearest to a mistyped one, or None where none is near."""
    lower = {each.lower(): each for each in known}
    found = difflib.get_close_matches(word.lower(), lower, n=1) if isinstance(word, str) else []
    return lower[found[0]] if found else None


def without_effect(why: str, unused: Mapping[str, tuple[Any, Any]]) -> None:
    """Require that arguments which have no effect keep their defaults.

    Args:
        why: what makes them have none.
        unused: value and default of each.

    Raises:
        ValueError: naming the argument, its value and why it has no effect.
    """
    for name, (value, default) in unused.items():
        if hasattr(value, "shape") or value != default:
            raise UserError(f"{name} = {shown(value)}: has no effect with {why}; leave it out")


def shape(name: str, value: Any, wanted: Sequence[int | str]) -> None:
    """Require an array of these axes, where a word stands for an axis of any length.

    Raises:
        ValueError: if its shape is another.
    """
    found = getattr(value, "shape", None)
    sizes = (
        found is not None
        and len(found) == len(wanted)
        and all(isinstance(want, str) or size == want for size, want in zip(found, wanted, strict=True))
    )
    if not sizes:
        got = shown(value) if found is None else f"[{', '.join(map(str, found))}]"
        raise UserError(f"{name}.shape = {got}: must be [{', '.join(map(str, wanted))}]")


def real_field(owner: object, field: str, **bounds: Any) -> float:
    """Require that a field of a frozen dataclass is a number as of :func:`real`, and store it as a float."""
    number = real(f"{type(owner).__name__}.{field}", getattr(owner, field), **bounds)
    object.__setattr__(owner, field, number)
    return number


def integer_field(owner: object, field: str, *, low: int) -> int:
    """Require that a field of a frozen dataclass is an integer as of :func:`integer`, and store it as an int.

    Whole floats count: the ends of a discrete schedule, which such a field may be set from, are floats.
    """
    value = getattr(owner, field)
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    number = integer(f"{type(owner).__name__}.{field}", whole, low=low)
    object.__setattr__(owner, field, number)
    return number


def ordered_fields(owner: object, low_field: str, high_field: str) -> None:
    """Require ``low_field < high_field`` of a dataclass.

    Raises:
        ValueError: if the two are not strictly increasing.
    """
    low, high = getattr(owner, low_field), getattr(owner, high_field)
    if not low < high:
        name = type(owner).__name__
        raise refused(f"{name}.{low_field}", low, f"smaller than {name}.{high_field} = {high!r}")


def shown(value: Any) -> str:
    """Return how a value reads in a message: arrays by type and shape, everything else by its repr, cut if it is long.

    A number in an array of no axes is shown as the number that it is, where it is known.
    """
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(shape, tuple) and dtype is not None:
        if shape == () and hasattr(value, "item"):
            try:
                return f"{value.item()!r}"
            except (TypeError, NotImplementedError):  # traced by jax, or a key
                pass
        return f"{dtype}[{', '.join(map(str, shape))}]"
    if isinstance(value, tuple):
        text = f"({', '.join(map(shown, value))}{',' if len(value) == 1 else ''})"
    else:
        text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _as_float(value: Any) -> float | None:
    if isinstance(value, (bool, str)):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return None if math.isnan(number) else number
