r"""Preconditioning of a network: unit variance of what it reads and of what it regresses, at every noise level.

The derivation of Karras et al. (2022), appendix B.6, for any process: ``u = a x + b eps``, ``r = c x + d eps``, data
of variance sigma^2 (``sigma_data``), and a prediction ``c_skip u + c_out F(c_in u)``. With q = a^2 sigma^2 + b^2:

    c_in = 1 / sqrt(q)                            so that c_in u has unit variance
    c_skip = (a c sigma^2 + b d) / q              so that r - c_skip u, hence c_out, has the least variance
    c_out = |a d - b c| sigma / sqrt(q)           so that (r - c_skip u) / c_out has unit variance

For Gaussian data the skip alone is the optimal prediction. What is left for F to regress is the same on every process:

    (r - c_skip u) / c_out = sign(a d - b c) (a sigma eps - b x / sigma) / sqrt(q)

up to its sign the target ``EDMNetwork``. On (VE, Signal) these are the coefficients of EDM's Table 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float
from jaxtyping import ArrayLike as ArrayLike

from geonoise_jax import checks
from geonoise_jax.fields.energy import total
from geonoise_jax.process.process import Process, expand


class Scales(NamedTuple):
    """The coefficients of the module docstring, each of the shape of t."""

    c_in: Float[Array, "*t"]
    c_skip: Float[Array, "*t"]
    c_out: Float[Array, "*t"]


@dataclasses.dataclass(frozen=True)
class Preconditioner:
    """The preconditioner of a network for data of variance ``sigma_data^2`` per entry and mean near zero.

    It uses t, so that a blind network cannot have one.

    Raises:
        ValueError: if sigma_data is not positive.
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        """Validate sigma_data > 0."""
        checks.real_field(self, "sigma_data", low=0.0, open_low=True)

    def scales(self, process: Process, t: ArrayLike) -> Scales:
        """Return ``(c_in, c_skip, c_out)`` for the target of a process at t, elementwise."""
        k, data = process.coeffs(t), self.sigma_data**2
        q = k.a * k.a * data + k.b * k.b
        size = jnp.sqrt(q)
        return Scales(1.0 / size, (k.a * k.c * data + k.b * k.d) / q, jnp.abs(k.det) * self.sigma_data / size)

    def predict(
        self,
        network: Callable[[Float[Array, "b *event"]], Float[Array, "b *event"]],
        process: Process,
        u: Float[Array, "b *event"],
        t: Float[Array, "b"],
    ) -> Float[Array, "b *event"]:
        """Return ``c_skip u + c_out network(c_in u)``."""
        c_in, c_skip, c_out = (expand(scale, u) for scale in self.scales(process, t))
        return c_skip * u + c_out * network(c_in * u)

    def potential(
        self,
        energy: Callable[[Float[Array, "b *event"]], Float[Array, "b"]],
        process: Process,
        u: Float[Array, "b *event"],
        t: Float[Array, "b"],
    ) -> Float[Array, "b"]:
        """Return the scalar whose gradient in u is the preconditioned gradient of ``energy``.

        It is ``c_skip |u|^2 / 2 + (c_out / c_in) energy(c_in u)``; its gradient is ``c_skip u + c_out grad(c_in u)``.
        """
        c_in, c_skip, c_out = self.scales(process, t)
        return 0.5 * c_skip * total(u * u) + c_out / c_in * energy(expand(c_in, u) * u)
