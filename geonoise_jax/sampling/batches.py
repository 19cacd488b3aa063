"""Batches of rows that are computed one after another, each spread over devices, each row with a key of its own."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Key, UInt32

from geonoise_jax import checks, processes


def size_of(num: int, batch_size: int | None, mesh: Mesh | None) -> int:
    """Return how many of ``num`` rows are computed at once: all by default, rounded up to a multiple of the devices.

    Raises:
        ValueError: if a number is not positive.
    """
    num = checks.integer("num", num, low=1)
    return whole(num if batch_size is None else min(checks.integer("batch_size", batch_size, low=1), num), mesh)


def whole(size: int, mesh: Mesh | None) -> int:
    """Return a size of batches, rounded up to a multiple of the devices of a mesh."""
    devices = 1 if mesh is None else mesh.size
    return -(-size // devices) * devices


def by_rows(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a batch: its first axis over all devices of a mesh."""
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def batches(
    key: Key[Array, ""], num: int, size: int, mesh: Mesh | None, *data: Any, first: int = 0
) -> Iterator[tuple[int, int, list[Any]]]:
    """Yield (start, true size, [keys, *data]) with every array padded to ``size`` by repeating its last row.

    Args:
        key: of which that of row i is made, by its number ``first + i``.
        num: number of rows.
        size: of a batch, see :func:`size_of`.
        mesh: devices to spread batches over.
        *data: arrays [num, ...], or None.
        first: number of the first row.
    """
    place = jnp.asarray if mesh is None else functools.partial(_spread, where=by_rows(mesh))
    for start in range(0, num, size):
        rows = np.minimum(np.arange(start, start + size), num - 1)
        keys = _keys_of_rows(key, place((first + rows).astype(np.uint32)))
        arrays = [None if values is None else place(np.asarray(values)[rows]) for values in data]
        yield start, min(size, num - start), [keys, *arrays]


def _spread(values: np.ndarray, where: NamedSharding) -> Array:
    """Return a batch over the devices of a mesh; of several processes each sends the rows of its own devices."""
    if processes.several():
        return processes.placed(values.shape, where, lambda rows: values[rows])
    return jax.device_put(values, device=where)


@jax.jit
def _keys_of_rows(key: Key[Array, ""], numbers: UInt32[Array, "b"]) -> Key[Array, "b"]:
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, numbers)
