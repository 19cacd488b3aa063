"""PRNG keys of one kind, whatever kind jax makes by default.

Under ``jax.vmap`` the draws of ``rbg`` and ``unsafe_rbg`` keys depend on the batch that a key is in, and their draws of
one array on its shape as a whole. Every key that a sample's own noise comes from is therefore a ``threefry2x32`` key,
whose draws are functions of its bits.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, UInt32

from geonoise_jax.errors import UserError

_KIND = "threefry2x32"
_SEEDS = 2**32


def root_key(seed: int) -> Key[Array, ""]:
    """Return the threefry key of a seed, also where jax's default is another kind of key.

    Raises:
        UserError: unless the seed is in 0..2^32 - 1: jax takes others modulo 2^32, unless it computes in 64 bits.
    """
    if not 0 <= seed < _SEEDS:
        raise UserError(f"seed = {seed}: must be in 0..{_SEEDS - 1}")
    return jax.random.key(seed, impl=_KIND)


def threefry(keys: Key[Array, "*b"] | UInt32[Array, "*b words"]) -> Key[Array, "*b"]:
    """Return threefry keys made of keys of any kind, each of its own bits alone; threefry keys stay as they are.

    All words of a key count.

    Args:
        keys: typed keys, or the uint32 words of keys of jax's default kind (``jax.random.PRNGKey``).
    """
    keys = jnp.asarray(keys)
    if not jax.dtypes.issubdtype(keys.dtype, jax.dtypes.prng_key):
        keys = jax.random.wrap_key_data(keys)
    if str(jax.random.key_impl(keys)) == _KIND:
        return keys
    words = jax.random.key_data(keys)
    made = jax.vmap(_of_words)(words.reshape(-1, words.shape[-1]))
    return made.reshape(keys.shape)


def _of_words(words: UInt32[Array, "words"]) -> Key[Array, ""]:
    key = root_key(0)
    for word in words:
        key = jax.random.fold_in(key, word)
    return key
