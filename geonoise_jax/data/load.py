"""Read a prepared data set into memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int32, Shaped

from geonoise_jax.data import memory
from geonoise_jax.data.arrays import Arrays
from geonoise_jax.data.prepare import FORMAT, prepare
from geonoise_jax.errors import UserError

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

_EVENT_KEYS = ("image", "point")
# Largest stored value of the image sets that do not fill the range of uint8.
_IMAGE_TOP = {"digits": 16}
_CHUNK = 1024


def load_arrays(
    name: str,
    split: str,
    *,
    data_dir: str | Path | None = None,
    builder_kwargs: Mapping[str, Any] | None = None,
    value_range: Sequence[float] = (),
) -> Arrays:
    """Read one split of a data set into memory, preparing its files first if need be.

    Args:
      name: `digits`, `circles`, or a TFDS data set with features `image` (uint8, one shape) and perhaps `label`.
      split: a TFDS split, e.g. `train`, `test` or `train[:80%]`.
      data_dir: root folder; TFDS's default when None.
      builder_kwargs: see `prepare`.
      value_range: the stored values that become -1 and 1 in model space. () means 0 and 255 (16 for `digits`) for
        uint8; floats are then left as they are, and images must be in [-1, 1].

    Returns:
      The items in the order of the files (the same on every machine), in their stored dtype, with their scaling.

    Raises:
      ValueError: see `prepare`; also an unknown split, another file format, other features, more data than memory, or
        images whose values do not fill the range that they are taken to have (the message gives the range found).
    """
    builder = prepare(name, data_dir=data_dir, builder_kwargs=builder_kwargs)
    features, key = builder.info.features, _event_key(builder)
    num_classes = getattr(features["label"], "num_classes", None) if "label" in features else None
    center, scale = _scaling(builder.name, features[key].np_dtype, value_range)
    events, labels = _read(_source(builder, split), key, features[key].shape, features[key].np_dtype, num_classes)
    arrays = Arrays(
        events=events, labels=labels, center=center, scale=scale, num_classes=num_classes, name=name, split=split
    )
    if not value_range and arrays.is_image:
        _check_filled(arrays)
    return arrays


def scaling(
    name: str,
    *,
    data_dir: str | Path | None = None,
    builder_kwargs: Mapping[str, Any] | None = None,
    value_range: Sequence[float] = (),
) -> tuple[float, float]:
    """Return center and scale of a data set's `Arrays` without reading it; arguments and errors as `load_arrays`."""
    builder = prepare(name, data_dir=data_dir, builder_kwargs=builder_kwargs)
    return _scaling(builder.name, builder.info.features[_event_key(builder)].np_dtype, value_range)


def _event_key(builder: tfds.core.DatasetBuilder) -> str:
    features = builder.info.features
    key = next((key for key in _EVENT_KEYS if key in features), None)
    if key is None or None in features[key].shape:
        raise UserError(
            f"data set {builder.name!r} must have a feature {' or '.join(_EVENT_KEYS)} of one shape: {features}"
        )
    return key


def _source(builder: tfds.core.DatasetBuilder, split: str) -> Sequence[Any]:
    try:
        return builder.as_data_source(split)
    except NotImplementedError:
        raise UserError(
            f"data set {builder.name!r} in {builder.data_dir} must be in the format {FORMAT}, but is in "
            f"{builder.info.file_format.value}: delete the folder or give another data_dir"
        ) from None


def _read(
    source: Any, key: str, shape: tuple[int, ...], dtype: type[np.generic], num_classes: int | None
) -> tuple[Shaped[np.ndarray, "N *event"], Int32[np.ndarray, "N"] | None]:
    """Read every item of a data source, by chunks so that only the arrays grow with the data set."""
    nbytes = len(source) * math.prod(shape) * np.dtype(dtype).itemsize
    way_out = "read a part, such as data.split = 'train[:10%]'"
    memory.require(nbytes, f"{len(source)} items of shape {list(shape)}, {np.dtype(dtype)}", way_out)
    events = np.empty((len(source), *shape), dtype)
    labels = np.empty(len(source), np.int32) if num_classes else None
    for start in range(0, len(source), _CHUNK):
        items = source.__getitems__(list(range(start, min(start + _CHUNK, len(source)))))
        events[start : start + len(items)] = [item[key] for item in items]
        if labels is not None:
            labels[start : start + len(items)] = [item["label"] for item in items]
    return events, labels


def _check_filled(arrays: Arrays) -> None:
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
        f"which stored values become -1 and 1, by data.range in a config or value_range of load_arrays"
    )


def _scaling(name: str, dtype: type[np.generic], value_range: Sequence[float]) -> tuple[float, float]:
    """Return (center, scale) of model space: uint8 to [-1, 1], floats unchanged, or as the range says."""
    if value_range:
        return _scaling_of(value_range)
    if np.issubdtype(dtype, np.floating):
        return 0.0, 1.0
    if dtype != np.uint8:
        raise UserError(
            f"events of data set {name!r} must be uint8 or floating, got {np.dtype(dtype)}; for others give data.range"
        )
    top = _IMAGE_TOP.get(name, 255)
    return top / 2, 2 / top


def _scaling_of(value_range: Sequence[float]) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in value_range)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f"data.range = {value_range!r}: must be () or two finite numbers, (lowest, highest)")
    return (low + high) / 2, 2 / (high - low)
