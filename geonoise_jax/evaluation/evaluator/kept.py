"""Rows of arrays that are made batch by batch and kept: what was stopped goes on, what is to grow is continued."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
from jaxtyping import Shaped

from geonoise_jax import files
from geonoise_jax.errors import UserError

_NAME = re.compile(r"(\d{8})-(\d{8})\.npz")


class Kept:
    """Arrays whose rows 0, 1, 2, ... lie in files ``START-STOP.npz`` of a folder, each there whole or not at all.

    Args:
        folder: the folder; it is made with the first batch.
    """

    def __init__(self, folder: PurePath) -> None:
        self.folder = folder

    @property
    def held(self) -> int:
        """Number of rows from the first on."""
        files_found = self._files()
        return files_found[-1][1] if files_found else 0

    def add(self, arrays: Mapping[str, Shaped[np.ndarray, "b *shape"]]) -> None:
        """Keep the rows that follow those that are held."""
        start = self.held
        stop = start + len(next(iter(arrays.values())))
        files.write_arrays(self.folder / f"{start:08d}-{stop:08d}.npz", arrays)

    def batches(self, num: int) -> Iterator[dict[str, Shaped[np.ndarray, "b *shape"]]]:
        """Yield the first ``num`` rows, file by file.

        Raises:
            UserError: if a file is damaged, or fewer rows are held.
        """
        if num > self.held:
            raise UserError(f"{self.folder}: holds {self.held} rows; must hold {num}")
        for start, stop, path in self._files():
            if start < num:
                yield {name: value[: num - start] for name, value in _read(path, stop - start).items()}

    def read(self, name: str, num: int) -> Shaped[np.ndarray, "num *shape"]:
        """Return the first ``num`` rows of one array."""
        return np.concatenate([batch[name] for batch in self.batches(num)])

    def _files(self) -> list[tuple[int, int, PurePath]]:
        """Return the files that continue each other from row 0 on."""
        by_start: dict[int, tuple[int, PurePath]] = {}
        for path in files.listed(self.folder):
            if match := _NAME.fullmatch(path.name):
                start, stop = int(match[1]), int(match[2])
                by_start[start] = max(by_start.get(start, (0, path)), (stop, path))
        found, at = [], 0
        while at in by_start:
            stop, path = by_start[at]
            found.append((at, stop, path))
            at = stop
        return found


def _read(path: PurePath, rows: int) -> dict[str, Any]:
    found = files.read_arrays(path)
    if any(len(value) != rows for value in found.values()):
        raise UserError(f"{path}: is damaged: must hold {rows} rows; remove it, and it is made again")
    return found
