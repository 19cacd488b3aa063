"""The divergence of a velocity: its trace over a basis, or an unbiased estimate of it from random probes.

The trace of a Jacobian J is the sum of ``v . J v`` over a basis, D products. A probe v with E[v v^T] = I has
E[v . J v] = tr J (Hutchinson 1990; FFJORD, Grathwohl et al. 2019, equation 7), one product. Entries of +-1 (Rademacher)
have the least variance of all independent entries, twice the sum of the squares of the symmetric part of J off its
diagonal; normal entries add those of the diagonal. A probe stays the same along a trajectory, so that the integral of
its estimates is an unbiased estimate of the integral.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from geonoise_jax import checks

# Up to this many dimensions the trace is exact unless probes are asked for.
EXACT_DIM = 32
KINDS = ("auto", "exact", "hutchinson")
NOISES = ("rademacher", "gaussian")
_PROBES = 8
# Products with the Jacobian that are computed at once.
_BLOCK = 16


@dataclasses.dataclass(frozen=True)
class Divergence:
    """How the divergence is found.

    Attributes:
        kind: ``"exact"`` or ``"hutchinson"``.
        probes: number of probes of each event; 0 of an exact trace.
        noise: their entries, ``"rademacher"`` or ``"gaussian"``; empty of an exact trace.
    """

    kind: str
    probes: int = 0
    noise: str = ""

    def __str__(self) -> str:
        """Return it as words of a protocol."""
        return "exact trace" if self.kind == "exact" else f"{self.probes} {self.noise} probes an event"

    @property
    def estimates(self) -> int:
        """Number of estimates of one trace."""
        return self.probes or 1

    def vectors(self, key: Key[Array, ""], event_shape: tuple[int, ...], dtype: jnp.dtype) -> Float[Array, "k *event"]:
        """Return the vectors whose products with the Jacobian are taken: a basis, or probes drawn with a key."""
        if self.kind == "exact":
            return jnp.eye(math.prod(event_shape), dtype=dtype).reshape(-1, *event_shape)
        draw = jax.random.rademacher if self.noise == "rademacher" else jax.random.normal
        return draw(key, (self.probes, *event_shape), dtype)

    def traces(self, products: Float[Array, "k"]) -> Float[Array, "estimates"]:
        """Return the estimates of the trace from the products with all vectors."""
        return products.sum(keepdims=True) if self.kind == "exact" else products


def chosen(dim: int, kind: str = "auto", probes: int | None = None, noise: str | None = None) -> Divergence:
    """Return how the divergence is found in ``dim`` dimensions.

    Args:
        dim: number D of entries of an event.
        kind: one of ``KINDS``; ``"auto"`` is exact up to ``EXACT_DIM`` dimensions, unless ``probes`` are given.
        probes: number of probes of each event, 8 by default.
        noise: one of ``NOISES``, ``"rademacher"`` by default.

    Raises:
        ValueError: on an unknown word, a number of probes that is not positive, or either with an exact trace.
    """
    if checks.choice("divergence", kind, KINDS) == "auto":
        kind = "exact" if dim <= EXACT_DIM and probes is None and noise is None else "hutchinson"
    if kind == "exact":
        checks.without_effect("divergence = 'exact'", {"probes": (probes, None), "noise": (noise, None)})
        return Divergence("exact")
    count = checks.integer("probes", _PROBES if probes is None else probes, low=1)
    return Divergence("hutchinson", count, checks.choice("noise", NOISES[0] if noise is None else noise, NOISES))


def products(
    function: Callable[[Float[Array, "*event"]], Float[Array, "*event"]],
    y: Float[Array, "*event"],
    vectors: Float[Array, "k *event"],
) -> tuple[Float[Array, "*event"], Float[Array, "k"]]:
    """Return the value of a function at y, and ``v . J v`` of its Jacobian there for every vector, in blocks."""

    def of(v: Float[Array, "*event"]) -> tuple[Float[Array, "*event"], Float[Array, ""]]:
        value, along = jax.jvp(function, (y,), (v,))
        return value, jnp.sum(v * along)

    # The value does not depend on the vector: it is computed once a block.
    block = jax.vmap(of, out_axes=(None, 0))
    num = len(vectors)
    if num <= _BLOCK:
        return block(vectors)
    padded = jnp.concatenate([vectors, jnp.zeros((-num % _BLOCK, *vectors.shape[1:]), vectors.dtype)])
    values, found = jax.lax.map(block, padded.reshape(-1, _BLOCK, *vectors.shape[1:]))
    return values[0], found.reshape(-1)[:num]
