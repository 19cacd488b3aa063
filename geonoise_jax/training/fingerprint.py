"""A checksum of a pytree of arrays.

Checkpoint files can be damaged without their reader noticing (a flipped bit restores as another number), so the state
is checksummed when saved and when restored. The sum is over integers, hence the same on any number of devices, and the
same whether the devices compute it or the host.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree, UInt32

_GOLDEN = np.uint32(0x9E3779B1)


def fingerprint(tree: PyTree[Array]) -> list[int]:
    """Return one 32-bit checksum per leaf, in the order of ``jax.tree.leaves``.

    Each word, combined with its position, goes through a bijective hash before the sum (the finaliser of MurmurHash3):
    any one changed word changes the sum, several changes or exchanges do but for a chance of 2^-32.
    """
    leaves = jax.tree.leaves(tree)
    if jax.default_backend() == "cpu" and all(leaf.is_fully_addressable for leaf in leaves):
        # The arrays are in the host's memory already, and numpy needs no compilation.
        return [int(_checksum(np.asarray(leaf), np)) for leaf in leaves]
    # Arrays of this process alone are none that a program over all devices takes.
    own = [leaf.is_fully_addressable and jax.process_count() > 1 for leaf in leaves]
    spread = iter(_on_devices([leaf for leaf, alone in zip(leaves, own, strict=True) if not alone]))
    return [
        int(_checksum(np.asarray(leaf), np) if alone else next(spread)) for leaf, alone in zip(leaves, own, strict=True)
    ]


@jax.jit
def _on_devices(leaves: list[Array]) -> list[UInt32[Array, ""]]:
    return [_checksum(leaf, jnp) for leaf in leaves]


def _checksum(leaf: Any, xp: ModuleType) -> Any:
    words = _words(leaf, xp)
    position = xp.arange(words.size, dtype=np.uint32).reshape(words.shape)
    return xp.sum(_hash(words ^ position * _GOLDEN), dtype=np.uint32)


def _hash(x: Any) -> Any:
    x = (x ^ x >> 16) * np.uint32(0x85EBCA6B)
    x = (x ^ x >> 13) * np.uint32(0xC2B2AE35)
    return x ^ x >> 16


def _words(leaf: Any, xp: ModuleType) -> Any:
    """The bits of an array as 32-bit words; 64-bit numbers become two."""
    if leaf.dtype == np.bool_:
        return leaf.astype(np.uint32)
    width = leaf.dtype.itemsize
    if xp is jnp:
        return jax.lax.bitcast_convert_type(leaf, f"uint{min(8 * width, 32)}").astype(np.uint32)
    return np.atleast_1d(leaf).view(f"uint{min(8 * width, 32)}").astype(np.uint32)
