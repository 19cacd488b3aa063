"""A data set, in memory or read as needed, and the way between its stored values and model space."""

from __future__ import annotations

import dataclasses
import zlib
from typing import TypeVar

import jax
import numpy as np
from jaxtyping import Float, Int, Int32, Shaped

from geonoise_jax.data.rows import NO_CLASS as NO_CLASS
from geonoise_jax.data.rows import TOLERANCE, Column
from geonoise_jax.errors import UserError

AnyArray = TypeVar("AnyArray", np.ndarray, jax.Array)
# Bytes of events that a checksum reads at most, and bytes of a set from which it reads their labels only.
_CHECKSUM_BYTES = 64 * 2**20
_LARGE = 2**30
# Items of a streamed set that stand for all where a look at all would take too long.
_LOOKED_AT = 256
# Items that are looked through for a number that is not finite at once.
_CHUNK = 1024


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Arrays:
    """One split of a data set, in its stored dtype.

    Model space is x = (events - center) * scale in float32. Pixels 0..top become [-1, 1] with center = top/2 and
    scale = 2/top. Subtracting first is deliberate: the difference is exact, so x is rounded once, is symmetric about 0
    with end points exactly -1 and 1, and is the same on every backend, fused multiply-add or not.

    Attributes:
      events: the items, shape [N, *event], N >= 1; of a streamed set a `rows.Column` instead, which reads and checks
        what is asked of it.
      labels: class of each item, -1 for an item without one; or None. Of a streamed set perhaps a `rows.Column` too.
      center: stored value that becomes 0 in model space.
      scale: model-space size of one stored unit, positive.
      num_classes: number of classes, None without labels.
      name: name of the data set.
      split: name of the split.
      class_names: names of the classes, or None where they have none.

    Raises:
      ValueError: no items, values that are no real numbers, not finite or beyond float32 in model space (the message
        names the first), images outside [-1, 1] there, labels of another length, labels without `num_classes` or
        outside it, or a bad scale. The message names data set, split, field, what was found and what is allowed.
    """

    events: Shaped[np.ndarray, "N *event"]
    labels: Int32[np.ndarray, "N"] | None = None
    center: float = 0.0
    scale: float = 1.0
    num_classes: int | None = None
    name: str = "arrays"
    split: str = "train"
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.events.ndim < 2 or self.events.size == 0:
            raise UserError(f"events of {self._title} must be [N, *event], not empty: {list(self.events.shape)}")
        if self.events.dtype.kind not in "fiu":
            raise UserError(f"events of {self._title} must be real numbers, got dtype {self.events.dtype}")
        if not (np.isfinite(self.center) and np.isfinite(self.scale) and self.scale > 0):
            raise UserError(f"center must be finite and scale positive, got {self.center} and {self.scale}")
        if self.labels is not None:
            self._check_classes(self.labels)
        if self.labels is not None and not isinstance(self.labels, Column):
            self._check_labels(self.labels)
        if not self.is_streamed:
            self._check_values()

    def _check_classes(self, labels: np.ndarray) -> None:
        title = f"labels of {self._title}"
        if labels.shape != self.events.shape[:1] or labels.dtype != np.int32:
            raise UserError(f"{title} must be int32 [{len(self)}], got {labels.dtype} {list(labels.shape)}")
        if self.num_classes is None or self.num_classes < 1:
            raise UserError(f"num_classes of {self._title} must be at least 1 with labels, got {self.num_classes}")
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise UserError(
                f"class_names of {self._title} must be {self.num_classes} (num_classes), got {len(self.class_names)}"
            )

    def _check_labels(self, labels: np.ndarray) -> None:
        num = self.num_classes or 0
        bad = np.flatnonzero((labels < NO_CLASS) | (labels >= num))
        if bad.size:
            raise UserError(
                f"labels of {self._title} must be in 0..{num - 1} (num_classes - 1), or -1 for no class: {bad.size} of "
                f"{len(self)} are not, the first at index {bad[0]} is {labels[bad[0]]}"
            )

    def _check_values(self) -> None:
        low, high = self.value_range
        ends = [(end - self.center) * self.scale for end in (low, high)]
        limit = float(np.finfo(np.float32).max)
        if not max(abs(end) for end in ends) <= limit:
            raise UserError(self._first_bad(limit))
        if self.is_image and max(-ends[0], ends[1]) > 1.0 + TOLERANCE:
            raise UserError(
                f"images of {self._title} have values {low:g}..{high:g}, which are {ends[0]:g}..{ends[1]:g} "
                "in model space and must be in [-1, 1]: say which stored values become -1 and 1, by data.range in a "
                "config, value_range in the library, or center and scale of Arrays"
            )

    def _first_bad(self, limit: float) -> str:
        """Say which items hold a number that is not finite in model space."""
        count, first, value = 0, -1, np.nan
        for start in range(0, len(self), _CHUNK):
            rows = self.events[start : start + _CHUNK].reshape(-1, self.events[0].size)
            good = np.abs((rows.astype(np.float64) - self.center) * self.scale) <= limit
            bad = np.flatnonzero(~good.all(axis=1))
            if bad.size and first < 0:
                first, value = start + int(bad[0]), rows[bad[0]][~good[bad[0]]][0]
            count += bad.size
        return (
            f"events of {self._title} must be finite numbers (in float32), but {count} of {len(self)} items hold "
            f"others, the first at index {first}: {value:g}"
        )

    @property
    def _title(self) -> str:
        return f"{self.name}/{self.split}"

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
    def is_streamed(self) -> bool:
        """Whether items are read when they are asked for."""
        return isinstance(self.events, Column)

    @property
    def nbytes(self) -> int:
        """Size of events and labels in bytes, in memory or not."""
        return self.events.nbytes + (0 if self.labels is None else self.labels.nbytes)

    @property
    def value_range(self) -> tuple[float, float]:
        """The smallest and the largest stored value, of 256 items of a streamed set; NaN if there is one."""
        events = self.events[self._spread] if self.is_streamed else self.events
        return float(events.min()), float(events.max())

    @property
    def _spread(self) -> Int[np.ndarray, "n"]:
        """Numbers of items that are looked at in place of all, evenly spread."""
        return np.linspace(0, len(self) - 1, min(len(self), _LOOKED_AT)).round().astype(np.int64)

    def take(self, index: Int[np.ndarray, "n"]) -> dict[str, np.ndarray]:
        """Return `{"events": [n, *event] as stored, "labels": int32 [n]}` of some items; labels if there are any.

        Raises:
          UnreadableItemError: an item of a streamed set cannot be read; the message names its file.
        """
        stored = {"events": self.events, "labels": self.labels}
        read = self.events.of.take(index) if isinstance(self.events, Column) else {}
        return {
            name: read[name] if isinstance(values, Column) else values[index]
            for name, values in stored.items()
            if values is not None
        }

    def checksum(self) -> int:
        """Return a number that tells data sets apart: of up to 64 MiB of items, evenly spread, and labels.

        All labels, but of sets of more than 1 GiB those of these items, since they may lie in the same files.
        """
        step = -(-self.events.nbytes // _CHECKSUM_BYTES)
        total = zlib.crc32(f"{self.events.dtype} {self.events.shape}".encode())
        total = zlib.crc32(np.ascontiguousarray(self.events[::step]).data, total)
        labels = None if self.labels is None else self.labels[:: step if self.nbytes > _LARGE else 1]
        return total if labels is None else zlib.crc32(np.ascontiguousarray(labels).data, total)

    def to_model(self, events: Shaped[AnyArray, "*B"]) -> Float[AnyArray, "*B"]:
        """Map stored values to float32 model space; takes NumPy and (inside jit) JAX arrays of any shape."""
        return (events.astype(np.float32) - self.center) * self.scale
