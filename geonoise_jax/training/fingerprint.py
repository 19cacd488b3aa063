"""A checksum of a pytree of arrays, computed on the devices.

Checkpoint files can be damaged without their reader noticing (a flipped bit restores as another number), so the state
is checksummed when saved and when restored. The sum is over integers, hence the same on any number of devices.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree, UInt32

_GOLDEN = 0x9E3779B1


def fingerprint(tree: PyTree[Array]) -> list[int]:
    """Return one 32-bit checksum per leaf, in the order of ``jax.tree.leaves``.

    Each word, combined with its position, goes through a bijective hash before the sum (the finaliser of MurmurHash3):
    any one changed word changes the sum, several changes or exchanges do but for a chance of 2^-32.
    """
    return [int(value) for value in _checksums(jax.tree.leaves(tree))]


@jax.jit
def _checksums(leaves: list[Array]) -> list[UInt32[Array, ""]]:
    return [_checksum(leaf) for leaf in leaves]


def _checksum(leaf: Array) -> UInt32[Array, ""]:
    words = _words(leaf)
    position = jnp.zeros(words.shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(words.ndim)):
        position += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * np.uint32(stride % 2**32)
        stride *= words.shape[axis]
    return jnp.sum(_hash(words ^ position * np.uint32(_GOLDEN)), dtype=jnp.uint32)


def _hash(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    x = (x ^ x >> 16) * np.uint32(0x85EBCA6B)
    x = (x ^ x >> 13) * np.uint32(0xC2B2AE35)
    return x ^ x >> 16


def _words(leaf: Array) -> UInt32[Array, "..."]:
    if leaf.dtype == jnp.bool_:
        return leaf.astype(jnp.uint32)
    width = leaf.dtype.itemsize
    if width <= 4:
        return jax.lax.bitcast_convert_type(leaf, f"uint{8 * width}").astype(jnp.uint32)
    return jax.lax.bitcast_convert_type(leaf, jnp.uint32)
