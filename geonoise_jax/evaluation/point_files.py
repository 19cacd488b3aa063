"""Points that a user gives in a .npy file."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Real

from geonoise_jax.errors import UserError

_LOG = logging.getLogger(__name__)
# So many values without a negative one are no noise.
_MANY = 64
_TOLERANCE = 1e-3


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
            raise UserError(f"{name}: not a readable .npy file of numbers ({reason})") from error
    if points.dtype.kind not in "fiu":
        raise UserError(f"{name}: has dtype {points.dtype}; must be real numbers")
    if points.ndim < 2 or points.size == 0:
        raise UserError(f"{name}: has shape {list(points.shape)}; must be one or more points, [B, *event] or [B, D]")
    return PointFile(points, name)


class Space(NamedTuple):
    """What points of a file may be.

    Attributes:
        event: shape of one.
        scaling: center and scale of the data set, see ``data.Arrays``; None where they are not known.
        reach: largest absolute value that an image may have in model space, where data lies in [-1, 1].
    """

    event: tuple[int, ...]
    scaling: tuple[float, float] | None
    reach: float

    @property
    def is_image(self) -> bool:
        """Whether a point is an image [H, W, C]."""
        return len(self.event) == 3


def as_events(given: PointFile, space: Space) -> Float[np.ndarray, "b *event"]:
    """Return points, stored with the event's shape or flattened, as events with floats of jax's precision.

    Floats are values of model space. Integers are stored values of the data set, and are brought to model space as its
    own are.

    Args:
        given: the points.
        space: what they may be.

    Raises:
        ValueError: if they have another shape, are not finite in that precision, or have values that the data set or
            model space does not have; the error gives the range found.
    """
    (points, name), flat = given, (math.prod(space.event),)
    if points.shape[1:] not in (space.event, flat):
        shapes = " or ".join(dict.fromkeys(str(["B", *shape]).replace("'", "") for shape in (space.event, flat)))
        raise UserError(f"{name}: has shape {list(points.shape)}; the config's data needs {shapes}")
    if points.dtype.kind in "iu":
        points = _scaled(given, space)
    with np.errstate(over="ignore"):
        events = points.astype(np.dtype(jnp.result_type(float))).reshape(-1, *space.event)
    bad = np.flatnonzero(~np.isfinite(events).reshape(len(events), -1).all(axis=1))
    if bad.size:
        raise UserError(
            f"{name}: {bad.size} of {len(events)} points are not finite numbers, the first at index {bad[0]}"
        )
    if space.is_image and given.points.dtype.kind == "f":
        _check_image_values(name, events, space.reach)
    return events


def _scaled(given: PointFile, space: Space) -> Real[np.ndarray, "b *event"]:
    """Bring stored values to model space."""
    (points, name), (center, scale) = given, space.scaling or (0.0, 1.0)
    found = f"{name}: holds integers {points.min()}..{points.max()}"
    if (center, scale) == (0.0, 1.0):
        if space.is_image:
            raise UserError(f"{found}; must be floats in model space, where images lie in [-1, 1]")
        return points
    low, high = center - 1.0 / scale, center + 1.0 / scale
    if points.min() < low or points.max() > high:
        raise UserError(
            f"{found}; integers are stored values of the data set, which must be in {low:g}..{high:g} (floats are "
            "values of model space)"
        )
    return (points.astype(np.float64) - center) * scale


def _check_image_values(name: str, events: Float[np.ndarray, "b *event"], reach: float) -> None:
    """Refuse pixel values, which are far outside model space or, where noise may be large, have no negative ones."""
    low, high = float(events.min()), float(events.max())
    found = f"{name}: has values {low:g}..{high:g}; floats are values of model space, where images lie in [-1, 1]"
    positive = low >= 0.0 and events.size >= _MANY
    if max(-low, high) > reach:
        raise UserError(f"{found} (with noise, up to {reach:.3g} is possible)")
    if positive and high > 1.0 + _TOLERANCE:
        raise UserError(f"{found}, and half of all noise is negative")
    if positive and high > low:
        _LOG.warning("%s: are they pixels of another range?", found)
