"""The user's own data in memory: plain arrays, or a function that returns one item after another."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32, Shaped

from geonoise_jax import checks
from geonoise_jax.data import memory, ranges
from geonoise_jax.data.arrays import NO_CLASS, Arrays
from geonoise_jax.errors import UserError

# Numbers of channels by which [N, C, H, W] is told from [N, H, W, C].
_CHANNELS = (1, 3, 4)


def from_numpy(
    events: Any,
    labels: Any = None,
    *,
    value_range: Sequence[float] = (),
    channels_first: bool | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    name: str = "arrays",
    split: str = "train",
) -> Arrays:
    """Return plain arrays as a data set.

    Args:
      events: the items, real numbers [N, *event], or what NumPy makes an array of; not copied where it is one.
        [N, H, W] are grey images.
      labels: class of each item, integers [N], -1 for none; or None.
      value_range: the stored values that become -1 and 1 in model space. () means 0 and 255 for uint8; floats are then
        left as they are, and images must be in [-1, 1].
      channels_first: whether images are [N, C, H, W]; None: refuse what looks like it.
      num_classes: number of classes; None: as many as there are names, or one more than the largest label.
      class_names: names of the classes.
      name: name of the data set, for messages and titles.
      split: name of the split.

    Raises:
      ValueError: see `Arrays`; also labels that are no class numbers, values of a dtype whose range is not known, or
        images whose values do not fill the range that they are taken to have.
    """
    title = f"events of {name}/{split}"
    try:
        array = np.asarray(events)
    except (TypeError, ValueError) as error:
        raise UserError(f"{title} must be an array of real numbers ({error})") from None
    if array.dtype.kind not in "fiu" or array.ndim == 0:
        raise UserError(f"{title} must be real numbers [N, *event], got dtype {array.dtype}, shape {list(array.shape)}")
    event_shape(array.shape, channels_first, title)
    numbers = None if labels is None else class_numbers(np.asarray(labels), len(array), f"labels of {name}/{split}")
    if num_classes is None and class_names is not None:
        num_classes = len(class_names)
    if num_classes is None and numbers is not None:
        num_classes = int(numbers.max(initial=NO_CLASS)) + 1 or None
    return assemble(
        channels_last(array, channels_first),
        numbers,
        value_range=value_range,
        num_classes=num_classes,
        class_names=None if class_names is None else tuple(class_names),
        name=name,
        split=split,
    )


def from_items(read: Callable[[int], Any], num: int, **options: Any) -> Arrays:
    """Return what a function reads as a data set, all of it in memory.

    Args:
      read: called with 0, 1, ..., num - 1; returns an item, or a pair of an item and its class. All items have the
        shape and dtype of the first.
      num: number of items, at least 1.
      **options: see `from_numpy`.

    Raises:
      ValueError: see `from_numpy`; also an item of another shape or dtype, or more items than memory.
    """
    num = checks.integer("num", num, low=1)
    labelled = isinstance(first := read(0), tuple)
    like = np.asarray(first[0] if labelled else first)
    memory.require(num * like.nbytes, f"{num} items of shape {list(like.shape)}, {like.dtype}", "read fewer")
    events, labels = np.empty((num, *like.shape), like.dtype), np.empty(num, np.int64)
    for row in range(num):
        answer = first if row == 0 else read(row)
        if isinstance(answer, tuple) != labelled or (labelled and len(answer) != 2):
            raise UserError(
                f"read({row}): must return {'an item and its class' if labelled else 'an item'}, as read(0)"
            )
        item = np.asarray(answer[0] if labelled else answer)
        if item.shape != like.shape or item.dtype != like.dtype:
            raise UserError(
                f"read({row}): is {item.dtype} {list(item.shape)}, but read(0) is {like.dtype} {list(like.shape)}"
            )
        events[row] = item
        if labelled:
            labels[row] = class_numbers(np.asarray([answer[1]]), 1, f"the class of read({row})")[0]
    return from_numpy(events, labels if labelled else None, **options)


def assemble(
    events: Shaped[np.ndarray, "N *event"],
    labels: Int32[np.ndarray, "N"] | None,
    *,
    value_range: Sequence[float],
    num_classes: int | None,
    class_names: tuple[str, ...] | None,
    name: str,
    split: str,
) -> Arrays:
    """Return items of any source as checked `Arrays`, with their scaling.

    Labels that are all -1, as in test splits whose classes are kept secret, are none.

    Raises:
      ValueError: see `from_numpy`.
    """
    if isinstance(labels, np.ndarray) and (labels == NO_CLASS).all():
        labels = None
    center, scale = ranges.scaling(name, events.dtype, value_range)
    arrays = Arrays(
        events=events,
        labels=labels,
        center=center,
        scale=scale,
        num_classes=None if labels is None else num_classes,
        name=name,
        split=split,
        class_names=None if labels is None else class_names,
    )
    if not len(value_range) and arrays.is_image:
        ranges.check_filled(arrays)
    elif arrays.is_streamed:
        _ = arrays.value_range  # a look at some items, before a long run begins
    return arrays


def event_shape(shape: tuple[int, ...], channels_first: bool | None, title: str) -> tuple[int, ...]:
    """Return the shape of one item of an array as `channels_last` returns it.

    Raises:
      ValueError: no items in rows, or an order of axes that must be said.
    """
    if len(shape) < 2 or 0 in shape:
        raise UserError(f"{title}: must be [N, *event], not empty: {list(shape)}")
    if channels_first and len(shape) != 4:
        raise UserError(f"{title}: must be [N, C, H, W] with channels_first, got {list(shape)}")
    if channels_first is None and len(shape) == 4 and shape[1] in _CHANNELS and shape[3] not in _CHANNELS:
        raise UserError(
            f"{title}: {list(shape)} looks like [N, C, H, W]; say channels_first=True, or False for [N, H, W, C]"
        )
    if channels_first:
        return (*shape[2:], shape[1])
    return (*shape[1:], 1) if len(shape) == 3 else shape[1:]


def channels_last(array: Shaped[np.ndarray, "N *axes"], channels_first: bool | None) -> Shaped[np.ndarray, "N *event"]:
    """Return images as [N, H, W, C], and anything else as it is."""
    if channels_first:
        return np.ascontiguousarray(np.moveaxis(array, 1, -1))
    return array[..., None] if array.ndim == 3 else array


def class_numbers(labels: Shaped[np.ndarray, "..."], num: int, title: str) -> Int32[np.ndarray, "N"]:
    """Return labels as integers of one axis.

    Raises:
      ValueError: another shape, one-hot vectors, or no integers; `Arrays` checks their range.
    """
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.ndim == 2 and math.prod(labels.shape) > 0:
        raise UserError(f"{title}: have shape {list(labels.shape)}; must be class numbers [N], not one-hot vectors")
    if labels.shape != (num,):
        raise UserError(f"{title}: have shape {list(labels.shape)}; must be [{num}], one for each item")
    whole = labels.dtype.kind in "iu" or (labels.dtype.kind == "f" and bool(np.all(labels == np.rint(labels))))
    if not whole:
        raise UserError(f"{title}: have dtype {labels.dtype}; must be integers, -1 for no class")
    bad = np.flatnonzero((labels < NO_CLASS) | (labels > np.iinfo(np.int32).max))
    if bad.size:
        raise UserError(
            f"{title}: the one at index {bad[0]} is {labels[bad[0]]}; must be 0 or more, or -1 for no class"
        )
    return labels.astype(np.int32)
