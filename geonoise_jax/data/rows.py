"""Items that stay in their files and are read when they are asked for, by their numbers: data beyond memory.

What is read is checked as it comes, since a set that nobody read before may hold anything, and a file may vanish or be
damaged while a run trains: the error names the file and the item.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NoReturn, Protocol

import numpy as np
from jaxtyping import Int, Int32, Shaped
from numpy.lib.mixins import NDArrayOperatorsMixin

from geonoise_jax.data import memory
from geonoise_jax.errors import UserError

# Items that are read at once where many are asked for.
CHUNK = 1024
# Rounding of images that are stored in model space.
TOLERANCE = 1e-3
NO_CLASS = -1


class UnreadableItemError(UserError):
    """An item of a data set cannot be read, or is no item; the message names its file and number."""


class NoReaderError(UserError):
    """A data set can only be read as a whole; the message says what to do."""


class Reader(Protocol):
    """How the items of a split lie in files; used by several threads at once."""

    @property
    def num(self) -> int:
        """Number of items."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one item."""

    @property
    def dtype(self) -> np.dtype:
        """Dtype as stored."""

    @property
    def labelled(self) -> bool:
        """Whether items have classes."""

    @property
    def labels(self) -> Int32[np.ndarray, "N"] | None:
        """All classes, where they are known without the items."""

    def read(self, index: Int[np.ndarray, "n"]) -> tuple[Shaped[np.ndarray, "n *event"], Int32[np.ndarray, "n"] | None]:
        """Read some items, and their classes if they have some that are not known; any error is reported."""

    def where(self, row: int) -> str:
        """Return the file in which an item lies, for errors."""


@dataclasses.dataclass(frozen=True, eq=False)
class Streamed:
    """The items of a reader, checked as they are read.

    Attributes:
      reader: reads them.
      title: how errors call the data set.
      center, scale: of model space, see `Arrays`.
      num_classes: number of classes, None without labels.
    """

    reader: Reader
    title: str
    center: float
    scale: float
    num_classes: int | None

    def take(self, index: Int[np.ndarray, "n"]) -> dict[str, np.ndarray]:
        """Read some items.

        Returns:
          `{"events": [n, *event] as stored, "labels": int32 [n]}`, without labels if there are none or the reader
          knows them.

        Raises:
          UnreadableItemError: naming the first of them that cannot be read or is out of range, and its file.
        """
        try:
            events, labels = self.reader.read(index)
        except Exception as error:  # of files that vanish or are damaged: all kinds
            self._blame(index, error)
        bad = np.flatnonzero(self._bad_events(events) | self._bad_labels(labels, len(events)))
        if bad.size:
            self._refuse(int(index[bad[0]]), events[bad[0]], None if labels is None else labels[bad[0]])
        return {"events": events} if labels is None else {"events": events, "labels": labels}

    @property
    def _limit(self) -> float:
        """The largest size in model space."""
        return 1.0 + TOLERANCE if len(self.reader.shape) == 3 else float(np.finfo(np.float32).max)

    def _bad_events(self, events: np.ndarray) -> np.ndarray:
        none = np.zeros(len(events), bool)
        if not events.size or self._fits(events.min()) & self._fits(events.max()):
            return none
        flat = events.reshape(len(events), -1)
        return ~(self._fits(flat.min(axis=1)) & self._fits(flat.max(axis=1)))

    def _fits(self, values: Any) -> Any:
        """Return where values are in range; NaN is not."""
        return np.abs((np.asarray(values, np.float64) - self.center) * self.scale) <= self._limit

    def _bad_labels(self, labels: np.ndarray | None, num: int) -> np.ndarray:
        if labels is None:
            return np.zeros(num, bool)
        return (labels < NO_CLASS) | (labels >= (self.num_classes or 0))

    def _refuse(self, row: int, event: np.ndarray, label: Any) -> NoReturn:
        where = f"item {row} of {self.title} ({self.reader.where(row)})"
        if not np.isfinite(event).all():
            value = event[~np.isfinite(event)][0]
            raise UnreadableItemError(f"{where} must be finite numbers, but holds {value:g}")
        if self._bad_events(event[None])[0]:
            low, high = event.min(), event.max()
            raise UnreadableItemError(
                f"{where} has values {low:g}..{high:g}, which are {(low - self.center) * self.scale:g}.."
                f"{(high - self.center) * self.scale:g} in model space and must be in [-{self._limit:.4g}, "
                f"{self._limit:.4g}]: say which stored values become -1 and 1, by data.range in a config"
            )
        raise UnreadableItemError(
            f"{where} has the label {label}: must be in 0..{(self.num_classes or 0) - 1} (num_classes - 1), or -1 for "
            "no class"
        )

    def _blame(self, index: np.ndarray, error: Exception) -> NoReturn:
        """Find the item that cannot be read."""
        for row in index.tolist():
            try:
                self.reader.read(np.asarray([row]))
            except Exception as again:  # the same, of one item
                raise UnreadableItemError(
                    f"item {row} of {self.title} ({self.reader.where(row)}) cannot be read: {_reason(again)}"
                ) from again
        raise UnreadableItemError(f"items of {self.title} could not be read: {_reason(error)}") from error


class Column(NDArrayOperatorsMixin):
    """The events or the labels of streamed items in place of an array: what is asked of it is read, and kept nowhere.

    It is indexed like an array along the first axis. NumPy takes it for an array, and then reads all, if that fits into
    memory.
    """

    def __init__(self, of: Streamed, name: str) -> None:
        """Name a part of items: "events" or "labels"."""
        self.of, self._name = of, name
        event = of.reader.shape if name == "events" else ()
        self.shape: tuple[int, ...] = (of.reader.num, *event)
        self.dtype = of.reader.dtype if name == "events" else np.dtype(np.int32)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of entries."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Size in bytes, if it were in memory."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        """Number of items."""
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Read the items of a slice, of numbers, or one item, and nothing else.

        Raises:
          UnreadableItemError: see `Streamed.take`.
        """
        index = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else self._numbers(rows)
        out = np.empty((index.size, *self.shape[1:]), self.dtype)
        for start in range(0, index.size, CHUNK):
            out[start : start + CHUNK] = self.of.take(index.ravel()[start : start + CHUNK])[self._name]
        return out.reshape(*index.shape, *self.shape[1:])

    def _numbers(self, rows: Any) -> Int[np.ndarray, "..."]:
        """Return numbers of items, or those of a mask, from 0 on."""
        index = np.asarray(rows)
        if index.dtype == bool:
            return np.flatnonzero(index)
        if index.size and not -len(self) <= index.min() <= index.max() < len(self):
            raise IndexError(f"rows must be in {-len(self)}..{len(self) - 1}, got {index.min()}..{index.max()}")
        return np.where(index < 0, index + len(self), index)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read all.

        Raises:
          ValueError: it does not fit into memory; the message gives the sizes.
        """
        del copy
        what = f"all {self._name} of {self.of.title}"
        memory.require(self.nbytes, what, "take a part of the split, such as 'train[:10%]'")
        return self[:].astype(dtype or self.dtype, copy=False)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """Apply a function of NumPy to all."""
        whole = [np.asarray(each) if isinstance(each, Column) else each for each in inputs]
        return getattr(ufunc, method)(*whole, **options)


def columns(of: Streamed) -> tuple[Any, Any]:
    """Return events and labels of streamed items in place of arrays; labels that are known already as an array."""
    reader = of.reader
    if reader.labels is not None:
        return Column(of, "events"), reader.labels
    return Column(of, "events"), Column(of, "labels") if reader.labelled else None


def _reason(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
