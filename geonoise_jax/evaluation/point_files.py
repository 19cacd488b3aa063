"""Points that a user gives in a .npy file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Real


class PointFile(NamedTuple):
    """Points as stored, and how errors call them."""

    points: Real[np.ndarray, "b *event"]
    name: str


def read_points(path: Path, option: str) -> PointFile:
    """Read points from a .npy file, without running code that it may hold.

    Args:
        path: the file.
        option: name of the option that gave it, for errors.

    Raises:
        ValueError: if it is no .npy file of real numbers, or holds no point.
    """
    name = f"{option} = {str(path)!r}"
    with path.open("rb") as file:
        try:
            points = np.lib.format.read_array(file, allow_pickle=False)
        except (ValueError, EOFError, MemoryError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{name}: not a readable .npy file of numbers ({reason})") from error
    if points.dtype.kind not in "fiu":
        raise ValueError(f"{name}: has dtype {points.dtype}; must be real numbers")
    if points.ndim < 2 or points.size == 0:
        raise ValueError(f"{name}: has shape {list(points.shape)}; must be one or more points, [B, *event] or [B, D]")
    return PointFile(points, name)


def as_events(given: PointFile, event: tuple[int, ...]) -> Float[np.ndarray, "b *event"]:
    """Return points, stored with the event's shape or flattened, as events with floats of jax's precision.

    Args:
        given: the points.
        event: shape of one.

    Raises:
        ValueError: if they have another shape or are not finite in that precision.
    """
    (points, name), flat = given, (math.prod(event),)
    if points.shape[1:] not in (event, flat):
        shapes = " or ".join(dict.fromkeys(str(["B", *shape]).replace("'", "") for shape in (event, flat)))
        raise ValueError(f"{name}: has shape {list(points.shape)}; the config's data needs {shapes}")
    with np.errstate(over="ignore"):
        events = points.astype(np.dtype(jnp.result_type(float))).reshape(-1, *event)
    bad = np.flatnonzero(~np.isfinite(events).reshape(len(events), -1).all(axis=1))
    if bad.size:
        raise ValueError(
            f"{name}: {bad.size} of {len(events)} points are not finite numbers, the first at index {bad[0]}"
        )
    return events
