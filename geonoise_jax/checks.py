"""How values read in messages and in the text of objects; see :func:`shown`."""

from __future__ import annotations

from typing import Any

_LONGEST = 80


def shown(value: Any) -> str:
    """Return how a value reads in a message: arrays by type and shape, everything else by its repr, cut if it is long.

    A number in an array of no axes is shown as the number that it is, where it is known.
    """
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(shape, tuple) and dtype is not None:
        if shape == () and hasattr(value, "item"):
            try:
                return f"{value.item()!r}"
            except TypeError:  # traced by jax, so that the number is not known
                pass
        return f"{dtype}[{', '.join(map(str, shape))}]"
    if isinstance(value, tuple):
        text = f"({', '.join(map(shown, value))}{',' if len(value) == 1 else ''})"
    else:
        text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
