"""Read a prepared data set into memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int32, Shaped

from geonoise_jax.data.arrays import Arrays
from geonoise_jax.data.prepare import FORMAT, prepare

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
) -> Arrays:
    """Read one split of a data set into memory, preparing its files first if need be.

    Args:
      name: `digits`, `circles`, or a TFDS data set with features `image` (uint8, one shape) and perhaps `label`.
      split: a TFDS split, e.g. `train`, `test` or `train[:80%]`.
      data_dir: root folder; TFDS's default when None.
      builder_kwargs: see `prepare`.

    Returns:
      The items in the order of the files (the same on every machine), with the scaling that takes uint8 images to
      [-1, 1] and leaves vectors unchanged.

    Raises:
      ValueError: see `prepare`; also an unknown split, another file format, or other features.
    """
    builder = prepare(name, data_dir=data_dir, builder_kwargs=builder_kwargs)
    features = builder.info.features
    key = next((key for key in _EVENT_KEYS if key in features), None)
    if key is None or None in features[key].shape:
        raise ValueError(f"data set {name!r} must have a feature {' or '.join(_EVENT_KEYS)} of one shape: {features}")
    num_classes = getattr(features["label"], "num_classes", None) if "label" in features else None
    events, labels = _read(_source(builder, split), key, features[key].shape, features[key].np_dtype, num_classes)
    center, scale = _scaling(builder.name, events.dtype)
    return Arrays(
        events=events, labels=labels, center=center, scale=scale, num_classes=num_classes, name=name, split=split
    )


def _source(builder: tfds.core.DatasetBuilder, split: str) -> Sequence[Any]:
    try:
        return builder.as_data_source(split)
    except NotImplementedError:
        raise ValueError(
            f"data set {builder.name!r} in {builder.data_dir} must be in the format {FORMAT}, but is in "
            f"{builder.info.file_format.value}: delete the folder or give another data_dir"
        ) from None


def _read(
    source: Any, key: str, shape: tuple[int, ...], dtype: type[np.generic], num_classes: int | None
) -> tuple[Shaped[np.ndarray, "N *event"], Int32[np.ndarray, "N"] | None]:
    """Read every item of a data source, by chunks so that only the arrays grow with the data set."""
    events = np.empty((len(source), *shape), dtype)
    labels = np.empty(len(source), np.int32) if num_classes else None
    for start in range(0, len(source), _CHUNK):
        items = source.__getitems__(list(range(start, min(start + _CHUNK, len(source)))))
        events[start : start + len(items)] = [item[key] for item in items]
        if labels is not None:
            labels[start : start + len(items)] = [item["label"] for item in items]
    return events, labels


def _scaling(name: str, dtype: np.dtype) -> tuple[float, float]:
    """Return (center, scale) of model space: images to [-1, 1], real-valued events unchanged."""
    if np.issubdtype(dtype, np.floating):
        return 0.0, 1.0
    if dtype != np.uint8:
        raise ValueError(f"events of data set {name!r} must be uint8 or floating, got {dtype}")
    top = _IMAGE_TOP.get(name, 255)
    return top / 2, 2 / top
