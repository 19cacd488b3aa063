"""A data set in memory, and the way between its stored values and model space."""

from __future__ import annotations

import dataclasses
import zlib
from typing import TypeVar

import jax
import numpy as np
from jaxtyping import Float, Int32, Shaped

from geonoise_jax.errors import UserError

AnyArray = TypeVar("AnyArray", np.ndarray, jax.Array)
# Rounding of images that are stored in model space.
_TOLERANCE = 1e-3
# Bytes of events that a checksum reads at most.
_CHECKSUM_BYTES = 64 * 2**20


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
      ValueError: no items, labels of another length, labels without `num_classes` or outside it, a bad scale, values
        that are not finite, or images outside [-1, 1] in model space.
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
            raise UserError(f"events of {self.name}/{self.split} must be [N, *event], not empty: {self.events.shape}")
        if not (np.isfinite(self.center) and np.isfinite(self.scale) and self.scale > 0):
            raise UserError(f"center must be finite and scale positive, got {self.center} and {self.scale}")
        if self.labels is not None:
            self._check_labels(self.labels)
        self._check_values()

    def _check_labels(self, labels: np.ndarray) -> None:
        if labels.shape != self.events.shape[:1] or labels.dtype != np.int32:
            raise UserError(f"labels must be int32 [{len(self)}], got {labels.dtype} {list(labels.shape)}")
        if self.num_classes is None or labels.min() < 0 or labels.max() >= self.num_classes:
            raise UserError(f"num_classes must exceed the labels {labels.min()}..{labels.max()}: {self.num_classes}")

    def _check_values(self) -> None:
        low, high = self.value_range
        if not (np.isfinite(low) and np.isfinite(high)):
            raise UserError(f"events of {self.name}/{self.split} must be finite numbers, but some are NaN or infinite")
        ends = [(end - self.center) * self.scale for end in (low, high)]
        if self.is_image and max(-ends[0], ends[1]) > 1.0 + _TOLERANCE:
            raise UserError(
                f"images of {self.name}/{self.split} have values {low:g}..{high:g}, which are {ends[0]:g}..{ends[1]:g} "
                "in model space and must be in [-1, 1]: say which stored values become -1 and 1, by data.range in a "
                "config, value_range of load_arrays, or center and scale of Arrays"
            )

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

    @property
    def value_range(self) -> tuple[float, float]:
        """The smallest and the largest stored value; NaN if there is one."""
        return float(self.events.min()), float(self.events.max())

    def checksum(self) -> int:
        """Return a number that tells data sets apart: of up to 64 MiB of items, evenly spread, and all labels."""
        step = -(-self.events.nbytes // _CHECKSUM_BYTES)
        total = zlib.crc32(f"{self.events.dtype} {self.events.shape}".encode())
        total = zlib.crc32(np.ascontiguousarray(self.events[::step]).data, total)
        return total if self.labels is None else zlib.crc32(np.ascontiguousarray(self.labels).data, total)

    def to_model(self, events: Shaped[AnyArray, "*B"]) -> Float[AnyArray, "*B"]:
        """Map stored values to float32 model space; takes NumPy and (inside jit) JAX arrays of any shape."""
        return (events.astype(np.float32) - self.center) * self.scale
