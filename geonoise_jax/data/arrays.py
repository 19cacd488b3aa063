"""A data set in memory, and the way between its stored values and model space."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import jax
import numpy as np
from jaxtyping import Float, Int32, Shaped

AnyArray = TypeVar("AnyArray", np.ndarray, jax.Array)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Arrays:
    """One split of a data set, in its stored dtype.

    Model space is x = (events - center) * scale in float32. Pixels 0..top become [-1, 1] with center = top/2 and
    scale = 2/top. Subtracting first is deliberate: the difference is exact, so x is rounded once, is symmetric about 0
    with end points exactly -1 and 1, and is the same on every backend, fused multiply-add or not.

    Attributes:
      events: the items, shape [N, *event], N >= 1.
      labels: class of each item, or None.
      center: stored value that becomes 0 in model space.
      scale: model-space size of one stored unit, positive.
      num_classes: number of classes, None without labels.
      name: name of the data set.
      split: name of the split.

    Raises:
      ValueError: no items, labels of another length, labels without `num_classes` or outside it, or a bad scale.
    """

    events: Shaped[np.ndarray, "N *event"]
    labels: Int32[np.ndarray, "N"] | None = None
    center: float = 0.0
    scale: float = 1.0
    num_classes: int | None = None
    name: str = "arrays"
    split: str = "train"

    def __post_init__(self) -> None:
        if self.events.ndim < 2 or self.events.size == 0:
            raise ValueError(f"events of {self.name}/{self.split} must be [N, *event], not empty: {self.events.shape}")
        if not (np.isfinite(self.center) and np.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"center must be finite and scale positive, got {self.center} and {self.scale}")
        if self.labels is not None:
            self._check_labels(self.labels)

    def _check_labels(self, labels: np.ndarray) -> None:
        if labels.shape != self.events.shape[:1] or labels.dtype != np.int32:
            raise ValueError(f"labels must be int32 [{len(self)}], got {labels.dtype} {list(labels.shape)}")
        if self.num_classes is None or labels.min() < 0 or labels.max() >= self.num_classes:
            raise ValueError(f"num_classes must exceed the labels {labels.min()}..{labels.max()}: {self.num_classes}")

    def __len__(self) -> int:
        """Number of items N."""
        return len(self.events)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one item."""
        return self.events.shape[1:]

    @property
    def is_image(self) -> bool:
        """Whether an item is an image [H, W, C]."""
        return len(self.event_shape) == 3

    @property
    def nbytes(self) -> int:
        """Size of events and labels in bytes."""
        return self.events.nbytes + (0 if self.labels is None else self.labels.nbytes)

    def to_model(self, events: Shaped[AnyArray, "*B"]) -> Float[AnyArray, "*B"]:
        """Map stored values to float32 model space; takes NumPy and (inside jit) JAX arrays of any shape."""
        return (events.astype(np.float32) - self.center) * self.scale
