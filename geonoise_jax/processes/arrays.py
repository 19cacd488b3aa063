"""Arrays that span processes: from what each process holds, and back to its host."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from geonoise_jax.processes.agreement import several

if TYPE_CHECKING:
    import jax
    import numpy as np


def to_host(tree: Any) -> Any:
    """Return a pytree of arrays as NumPy arrays, whole in every process; all processes call it."""
    import jax
    import numpy as np

    return jax.tree.map(_whole if several() else np.asarray, tree)


def placed(shape: tuple[int, ...], where: jax.sharding.Sharding, rows: Callable[[slice], np.ndarray]) -> jax.Array:
    """Return an array over the devices of all processes, of which each process makes only the rows of its own devices.

    Args:
        shape: of the whole.
        where: its sharding, along the first axis alone.
        rows: returns a slice of the rows of the whole.
    """
    import jax

    return jax.make_array_from_callback(shape, where, lambda at: rows(at[0] if at else slice(None)))


def _whole(leaf: Any) -> np.ndarray:
    import jax
    import numpy as np

    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
        return np.asarray(leaf)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
