"""Points that a user gives in a .npy or .npz file, as an image or as a folder of images."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Real
from ml_collections import ConfigDict

from geonoise_jax.data.decoding import for_each, read_files
from geonoise_jax.data.folder_tree import find_images
from geonoise_jax.data.images import SUFFIXES, header
from geonoise_jax.data.numpy_files import Stored, npz_member, npz_names, read_rows, stored
from geonoise_jax.errors import UserError
from geonoise_jax.evaluation.point_sets import finite

_LOG = logging.getLogger(__name__)
# So many values without a negative one are no noise.
_MANY = 64
_TOLERANCE = 1e-3
_NO_POINTS = np.empty((0, 0))
# Names of the array in a .npz file, the files of `sample` and `exact` among them.
_KEYS = {
    "x": ("x", "samples", "arr_0"),
    "reference": ("x", "samples", "arr_0"),
    "points": ("points", "u", "samples", "arr_0"),
}
# Center and scale of pixels as pictures show them: 0 is -1 and 255 is 1.
DISPLAYED = (127.5, 2 / 255)


class PointFile(NamedTuple):
    """Points as stored, and how errors call them.

    Attributes:
        points: the numbers; none yet where they are image files.
        name: how errors call them.
        files: image files, each a point, which are decoded once the size is known.
    """

    points: Real[np.ndarray, "b *event"]
    name: str
    files: tuple[Path, ...] = ()


def read_points(path: Path, option: str) -> PointFile:
    """Read points from a .npy or .npz file, without running code that it may hold, or find those of image files.

    Args:
        path: the file, an image or a folder of images, which count in the order of their names.
        option: name of the option that gave it, for errors.

    Raises:
        ValueError: if it is nothing of this, or holds no point.
    """
    name = f"{option} = {str(path)!r}"
    if path.is_dir():
        files = find_images(path, name)
        return PointFile(_NO_POINTS, name, tuple(files[key] for key in sorted(files)))
    with path.open("rb") as file:
        start = file.read(2)
    if path.suffix.lower() in SUFFIXES:
        return PointFile(_NO_POINTS, name, (path,))
    array = _of_npz(path, name, option) if start == b"PK" else stored(lambda: path.open("rb"), name)
    if len(array.shape) < 2 or 0 in array.shape:
        raise UserError(f"{name}: has shape {list(array.shape)}; must be one or more points, [B, *event] or [B, D]")
    return PointFile(read_rows(array), name)


def _of_npz(path: Path, name: str, option: str) -> Stored:
    names = npz_names(path, name)
    known = [key for key in _KEYS[option] if key in names]
    if not known and len(names) != 1:
        found = ", ".join(names) or "none"
        raise UserError(f"{name}: has arrays {found}; one must be called {' or '.join(_KEYS[option])}")
    return npz_member(path, name, (known or names)[0])


class Space(NamedTuple):
    """What points of a file may be.

    Attributes:
        event: shape of one.
        scaling: center and scale of the data set, see ``data.Arrays``; None where they are not known.
        reach: largest absolute value that an image may have in model space, where data lies in [-1, 1].
        fit: how image files of another size are brought to the event's, see ``data.images.fitted``; None: not at all.
        pixels: center and scale of the pixels 0..255 of image files.
    """

    event: tuple[int, ...]
    scaling: tuple[float, float] | None
    reach: float
    fit: str | None = None
    pixels: tuple[float, float] = DISPLAYED

    @property
    def is_image(self) -> bool:
        """Whether a point is an image [H, W, C]."""
        return len(self.event) == 3


def space_of(
    config: ConfigDict | None, event: tuple[int, ...], scaling: tuple[float, float] | None, reach: float
) -> Space:
    """Return what points may be for the data of a config, or None; image files are treated as it treats its own."""
    if config is None or config.data.name != "folder":
        return Space(event, scaling, reach)
    fit = config.data.kwargs.get("fit", "crop") if config.data.kwargs.get("size") else None
    return Space(event, scaling, reach, fit, scaling or DISPLAYED)


def as_events(given: PointFile, space: Space) -> Float[np.ndarray, "b *event"]:
    """Return points, stored with the event's shape or flattened, as events with floats of jax's precision.

    Floats are values of model space. Integers are stored values of the data set, and are brought to model space as its
    own are; so are image files, if it consists of such.

    Args:
        given: the points.
        space: what they may be.

    Raises:
        ValueError: if they have another shape, are not finite in that precision, or have values that the data set or
            model space does not have; the error gives the range found.
    """
    if given.files:
        return _decoded(given, space)
    points, name, flat = given.points, given.name, (math.prod(space.event),)
    if points.shape[1:] not in (space.event, flat):
        shapes = " or ".join(dict.fromkeys(str(["B", *shape]).replace("'", "") for shape in (space.event, flat)))
        raise UserError(f"{name}: has shape {list(points.shape)}; the config's data needs {shapes}")
    if points.dtype.kind in "iu":
        points = _scaled(given, space)
    with np.errstate(over="ignore"):
        events = points.astype(np.dtype(jnp.result_type(float))).reshape(-1, *space.event)
    bad = np.flatnonzero(~finite(events))
    if bad.size:
        raise UserError(
            f"{name}: {bad.size} of {len(events)} points are not finite numbers, the first at index {bad[0]}"
        )
    if space.is_image and given.points.dtype.kind == "f":
        _check_image_values(name, events, space.reach)
    return events


def _decoded(given: PointFile, space: Space) -> Float[np.ndarray, "b *event"]:
    """Read image files, in the size of the events and in model space."""
    if not space.is_image or space.event[-1] not in (1, 3):
        raise UserError(f"{given.name}: is an image or holds some; the config's data are {list(space.event)}")
    if space.fit is None:
        heads = for_each("look through", given.files, header, lambda path: repr(str(path)), given.name)
        sizes = {head.size for head in heads}
        if sizes != {space.event[:2]}:
            found = ", ".join("x".join(map(str, size)) for size in sorted(sizes)[:3])
            raise UserError(
                f"{given.name}: has images of {found} pixels (height x width); must be "
                f"{space.event[0]}x{space.event[1]}, as the config's data"
            )
    pixels = read_files(given.files, space.event, space.fit or "crop", given.name)
    if not len(pixels):
        raise UserError(f"{given.name}: no image is as large as {list(space.event)}")
    center, scale = space.pixels
    return ((pixels.astype(np.float64) - center) * scale).astype(np.dtype(jnp.result_type(float)))


def _scaled(given: PointFile, space: Space) -> Real[np.ndarray, "b *event"]:
    """Bring stored values to model space."""
    points, name, (center, scale) = given.points, given.name, space.scaling or (0.0, 1.0)
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
