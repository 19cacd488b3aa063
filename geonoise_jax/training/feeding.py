"""The batch of each step on the devices: of several processes, each makes or reads the rows of its own devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Int32

from geonoise_jax import processes
from geonoise_jax.data import memory
from geonoise_jax.data.pipeline import Pipeline
from geonoise_jax.data.prefetch import Prefetcher, depth


class Feed:
    """Called with the number of a step, counted from 0, it returns the batch."""

    def __init__(self, stream: Pipeline, where: NamedSharding, put: Callable[..., Any]) -> None:
        """Read nothing yet.

        Args:
            stream: the batches, whole.
            where: the sharding of a batch, along its first axis.
            put: puts the batch of a single process there.
        """
        self._stream, self._where, self._put = stream, where, put
        self._rows = _own_rows(stream.batch_size, where) if processes.several() else [range(stream.batch_size)]
        self._positions = np.concatenate([np.asarray(rows) for rows in self._rows])
        self._ahead: Prefetcher | None = None
        if stream.placement == "stream":
            self._ahead = Prefetcher(self._index, stream.take, ahead=depth(self._nbytes))

    def __call__(self, step: int) -> dict[str, Array]:
        """Return the batch over the devices.

        Raises:
            UnreadableItemError: an item of a set that is read as needed cannot be read.
        """
        if not processes.several():
            made = self._stream.batch(step) if self._ahead is None else self._ahead(step)
            return self._put(made, self._where)
        made = self._stream.rows(step, self._positions) if self._ahead is None else self._ahead(step)
        return {name: self._spread(values) for name, values in made.items()}

    def close(self) -> None:
        """End the threads that read ahead."""
        if self._ahead is not None:
            self._ahead.close()

    def __str__(self) -> str:
        """Say what the data are, and where."""
        data, size = self._stream.arrays, memory.in_words(self._stream.arrays.nbytes)
        places = {
            "device": "on the devices",
            "host": "in the memory of the host",
            "stream": f"read from files as needed, {depth(self._nbytes)} batches ahead",
        }
        share = f", {len(self._positions)} of the {self._stream.batch_size} items of a batch by this process"
        return (
            f"data: {data.name}/{data.split}, {len(data)} items, {size}, {places[self._stream.placement]}"
            f"{share if processes.several() else ''}"
        )

    @property
    def _nbytes(self) -> int:
        """Bytes of this process's rows of a batch."""
        return self._stream.arrays.nbytes * len(self._positions) // len(self._stream.arrays)

    def _index(self, step: int) -> Int32[np.ndarray, "n"]:
        return self._stream.index(step)[self._positions]

    def _spread(self, values: np.ndarray) -> Array:
        """Return rows that this process has made as its part of the whole."""
        starts = np.cumsum([0, *map(len, self._rows)])
        made = {rows.start: values[start:] for rows, start in zip(self._rows, starts, strict=False)}
        whole = (self._stream.batch_size, *values.shape[1:])

        def part(rows: slice) -> np.ndarray:
            start, stop, _ = rows.indices(whole[0])
            return made[start][: stop - start]

        return processes.placed(whole, self._where, part)


def _own_rows(size: int, where: NamedSharding) -> list[range]:
    """Return the rows of a batch that the devices of this process hold, each part once, in order."""
    parts = {
        at[0].indices(size)[:2] if at else (0, size) for at in where.addressable_devices_indices_map((size,)).values()
    }
    return [range(*part) for part in sorted(parts)]
