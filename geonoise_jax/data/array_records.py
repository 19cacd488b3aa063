"""Items of a prepared TFDS data set by their numbers, from its array_record files and without TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, Int32, Shaped


class ArrayRecords:
    """The items of a split; see `rows.Reader`."""

    def __init__(
        self, source: Any, files: Sequence[Any], key: str, shape: tuple[int, ...], dtype: np.dtype, *, labelled: bool
    ) -> None:
        """Take a data source; its files are opened when they are read.

        Args:
          source: the `tfds.data_source` of the split.
          files: its file instructions, in order.
          key: name of the feature with the events.
          shape, dtype: of an event.
          labelled: whether there is a feature `label`.
        """
        self._source, self._files, self._key = source, files, key
        self.num, self.shape, self.dtype, self.labelled = len(source), shape, dtype, labelled
        self.labels = None
        self._starts = np.cumsum([0, *(file.take for file in files)])

    def read(self, index: Int[np.ndarray, "n"]) -> tuple[Shaped[np.ndarray, "n *event"], Int32[np.ndarray, "n"] | None]:
        """Read and decode some records."""
        items = self._source.__getitems__(index.tolist())
        events = np.empty((len(items), *self.shape), self.dtype)
        for place, item in enumerate(items):
            events[place] = item[self._key]
        return events, np.asarray([item["label"] for item in items], np.int32) if self.labelled else None

    def where(self, row: int) -> str:
        """Return file and record."""
        at = int(np.searchsorted(self._starts, row, side="right")) - 1
        file = self._files[at]
        return f"record {row - int(self._starts[at]) + file.skip} of {file.filename}"
