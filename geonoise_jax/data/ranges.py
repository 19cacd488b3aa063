"""Which stored values become -1 and 1 in model space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from geonoise_jax.errors import UserError

if TYPE_CHECKING:
    from geonoise_jax.data.arrays import Arrays

# Largest stored value of the image sets that do not fill the range of uint8.
_IMAGE_TOP = {"digits": 16}
_WAYS = "data.range in a config or value_range in the library"


def scaling(name: str, dtype: np.dtype, value_range: Sequence[float]) -> tuple[float, float]:
    """Return (center, scale) of model space: uint8 to [-1, 1], floats unchanged, or as the range says.

    Raises:
      ValueError: a bad range, or none for values that are neither uint8 nor floats.
    """
    if len(value_range):
        return _of_range(value_range)
    if np.issubdtype(dtype, np.floating):
        return 0.0, 1.0
    if dtype != np.uint8:
        raise UserError(
            f"events of data set {name!r} must be uint8 or floating, got {dtype}; for other numbers say which of them "
            f"become -1 and 1, by {_WAYS}"
        )
    top = _IMAGE_TOP.get(name, 255)
    return top / 2, 2 / top


def check_filled(arrays: Arrays) -> None:
    """Refuse images that use little of the range that they are taken to have: their values mean something else.

    Raises:
      ValueError: uint8 images up to less than a quarter of the range, or float images without a negative value.
    """
    low, high = arrays.value_range
    floats = np.issubdtype(arrays.events.dtype, np.floating)
    if low < 0 or (not floats and high * arrays.scale >= 0.5):
        return
    taken = "-1..1" if floats else f"0..{2 * arrays.center:g}"
    raise UserError(
        f"images of {arrays.name}/{arrays.split} have values {low:g}..{high:g} and would be taken for {taken}: say "
        f"which stored values become -1 and 1, by {_WAYS}"
    )


def _of_range(value_range: Sequence[float]) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in value_range)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f"data.range = {value_range!r}: must be () or two finite numbers, (lowest, highest)")
    return (low + high) / 2, 2 / (high - low)
