"""Rows of .npy files by their numbers, each read where it lies.

The file is not mapped into memory: a mapped file that is cut short kills the process instead of raising, and its pages
would count as the process's own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int32, Shaped


class Block(NamedTuple):
    """Consecutive rows of an array in C order in a file.

    Attributes:
      open: returns a new descriptor of the file.
      offset: of the first of these rows, in bytes.
      num: number of rows.
      title: how errors call the file.
      first: number of the first of these rows in the file.
    """

    open: Callable[[], int]
    offset: int
    num: int
    title: str
    first: int


class NpyRows:
    """The rows of some blocks, one after the other; see `rows.Reader`."""

    def __init__(
        self,
        blocks: Sequence[Block],
        stored: tuple[int, ...],
        dtype: np.dtype,
        labels: Int32[np.ndarray, "N"] | None,
        arrange: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        """Open the files, once each.

        Args:
          blocks: where the rows lie.
          stored: shape of a row in the files.
          dtype: as stored, in the byte order of the files.
          labels: the classes, which fit into memory, or None.
          arrange: brings rows [n, *stored] to items [n, *event].
        """
        self.num, self.labels, self.labelled = sum(block.num for block in blocks), labels, labels is not None
        self.dtype = dtype.newbyteorder("=")
        self.shape: tuple[int, ...] = arrange(np.empty((1, *stored), self.dtype)).shape[1:]
        self._blocks, self._stored, self._in_file, self._arrange = blocks, stored, dtype, arrange
        self._starts = np.cumsum([0, *(block.num for block in blocks)])
        self._width = int(np.prod(stored, dtype=np.int64)) * dtype.itemsize
        self._files = [block.open() for block in blocks]

    def __del__(self) -> None:
        """Close the files."""
        for file in getattr(self, "_files", ()):
            os.close(file)

    def read(self, index: Int[np.ndarray, "n"]) -> tuple[Shaped[np.ndarray, "n *event"], None]:
        """Read some rows.

        Raises:
          ValueError: the file has become shorter.
          OSError: it cannot be read.
        """
        content = bytearray(len(index) * self._width)
        for place, row in enumerate(index.tolist()):
            content[place * self._width : (place + 1) * self._width] = self._bytes(row)
        rows = np.frombuffer(content, self._in_file).reshape(len(index), *self._stored)
        return np.ascontiguousarray(self._arrange(rows), self.dtype), None

    def where(self, row: int) -> str:
        """Return file and row."""
        block = self._block(row)
        return f"row {row - int(self._starts[block]) + self._blocks[block].first} of {self._blocks[block].title}"

    def _block(self, row: int) -> int:
        return int(np.searchsorted(self._starts, row, side="right")) - 1

    def _bytes(self, row: int) -> bytes:
        block = self._block(row)
        at = self._blocks[block].offset + (row - int(self._starts[block])) * self._width
        found = os.pread(self._files[block], self._width, at)
        if len(found) != self._width:
            raise ValueError("the file ends before it")
        return found
