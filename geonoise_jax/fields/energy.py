"""Energies made of a network: a scalar whose gradient is the prediction of the target.

With the target pointing from the data to the noise (``Equilibrium``, ``r = g (eps - x)``) the prediction ``grad E``
points uphill, and descent of E leads to the data. The released code of equilibrium matching (Wang & Du 2025, EqM-E)
regresses the opposite target on ``grad E'``, E' = <u, g> or -|g|^2 / 2, and reports the energy -E', the E of here.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

Energy = Callable[[Float[Array, "b *event"], Float[Array, "b *event"]], Float[Array, "b"]]


def total(values: Float[Array, "b *event"]) -> Float[Array, "b"]:
    """Return the sum over the entries of each event."""
    return jnp.sum(values.reshape(values.shape[0], -1), axis=1)


def dot(u: Float[Array, "b *event"], g: Float[Array, "b *event"]) -> Float[Array, "b"]:
    """Return ``<u, g(u)>`` (EqM-E); it is 0 at u = 0, whatever the network."""
    return total(u * g)


def l2(u: Float[Array, "b *event"], g: Float[Array, "b *event"]) -> Float[Array, "b"]:
    """Return ``|u + g(u)|^2 / 2``, which is bounded below by 0 (EqM-E, with a skip connection).

    Without the skip a network whose last layer starts at zero would never leave it: g = 0 and grad g = 0 make a
    stationary point of every loss.
    """
    return 0.5 * total((u + g) ** 2)


def affine(u: Float[Array, "b *event"], g: Float[Array, "b *event"]) -> Float[Array, "b"]:
    """Return ``<u / 2 + 1 / D, g(u)>``, D entries to an event.

    ``<u, g> / 2`` is the energy of a network with g = grad E where that is homogeneous of degree one, as image
    denoisers nearly are (Guth, Kadkhodaie & Simoncelli 2025); the mean of g makes any value possible at u = 0 as well.
    """
    return 0.5 * total(u * g) + jnp.mean(g.reshape(g.shape[0], -1), axis=1)


ENERGIES: dict[str, Energy] = {"dot": dot, "l2": l2, "affine": affine}
