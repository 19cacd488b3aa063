r"""An energy network that is a log density at every noise level, up to one constant.

U(u, t) approximates -log p(u | t). Trained by ``training.dual_score`` on both of its derivatives (Guth, Kadkhodaie &
Simoncelli 2025), it is right up to a constant that depends neither on u nor on t. The constant follows from any noise
level at which p(u | t) is known; at t_max it is the Gaussian N(0, q), q = a^2 sigma_data^2 + b^2, if a is negligible.

The network corrects the Gaussian of every noise level: with e one of ``ENERGIES`` of the network,

    U = |u|^2 / 2q + (D / 2) log(2 pi q) + (a sigma_data / b) e(u / sqrt(q), t)

the preconditioned energy of the target ``grad U = eps / b``; at e = 0 it is exact for data N(0, sigma_data^2).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key
from jaxtyping import ArrayLike as ArrayLike

from geonoise_jax import checks
from geonoise_jax.checks import refused
from geonoise_jax.errors import UserError
from geonoise_jax.fields.base import compiled
from geonoise_jax.fields.energy import total
from geonoise_jax.fields.network import META_FIELDS, NetworkField
from geonoise_jax.fields.preconditioning import Preconditioner
from geonoise_jax.process.keys import threefry
from geonoise_jax.process.process import check_start
from geonoise_jax.process.schedules import ScheduleCoeffs
from geonoise_jax.process.targets import Target

_GAUSSIAN = Preconditioner()


@dataclasses.dataclass(frozen=True)
class EnergyGradient(Target):
    """The gradient of the energy of the corruption kernel, ``r = eps / b = -grad_u log p(u | x, t)``."""

    def coeffs(
        self,
        schedule_coeffs: ScheduleCoeffs,
        t: ArrayLike,  # noqa: ARG002
    ) -> tuple[Float[Array, "*t"], Float[Array, "*t"]]:
        b = schedule_coeffs[1]
        return jnp.zeros_like(b), 1.0 / b


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["params", "labels", "offset"], meta_fields=META_FIELDS
)
@dataclasses.dataclass(frozen=True, repr=False)
class DensityField(NetworkField):
    """A network that is the energy ``U(u, t) = -log p(u | t)`` up to a constant, read as a field of any target.

    Attributes (besides those of NetworkField, of which ``output`` must be an energy and ``blind`` False):
        offset: the constant, E[U - energy of the true density]; see :meth:`normalised`.

    Raises:
        ValueError: as NetworkField, or if the network is blind, or the output no energy.
    """

    noise_feature: str = "smooth_log_snr"
    output: str = "affine"
    preconditioner: Preconditioner | None = _GAUSSIAN
    reads_as: Target | None = EnergyGradient()
    offset: Float[ArrayLike, ""] = 0.0

    def __post_init__(self) -> None:
        """Validate that the network is a conditional energy."""
        if self.output == "direct":
            raise UserError("DensityField.output = 'direct': must be an energy")
        if self.reads_as != EnergyGradient():
            raise UserError(f"DensityField.reads_as = {self.reads_as}: must be {EnergyGradient()}")
        if self.blind:
            raise UserError("DensityField.blind = True: must be False, as a density at every noise level depends on t")
        super().__post_init__()

    @compiled
    def energy(
        self, u: Float[Array, "b *event"], t: Float[Array, "b"] | None = None, **options: Any
    ) -> Float[Array, "b"]:
        """Return U(u, t), which is -log p(u | t) up to a constant.

        Raises:
            ValueError: if t is left out.
        """
        energy = super().energy(u, t, **options)
        if self.preconditioner is None or t is None:
            return energy
        c_in = self.preconditioner.scales(self.predicted, t).c_in
        return energy + self._dim * (0.5 * math.log(2.0 * math.pi) - jnp.log(c_in))

    def scores(
        self, u: Float[Array, "b *event"], t: Float[Array, "b"], **options: Any
    ) -> tuple[Float[Array, "b *event"], Float[Array, "b"]]:
        """Return the derivatives of U in u and in t."""
        return jax.grad(lambda u, t: self.energy(u, t, **options).sum(), argnums=(0, 1))(u, t)

    def log_density(self, u: Float[Array, "b *event"], t: Float[Array, "b"]) -> Float[Array, "b"]:
        """Return log p(u | t) in nats, of a :meth:`normalised` field.

        Raises:
            ValueError: if the field has labels, whose densities have constants of their own.
        """
        self._refuse_labels()
        energy = self.energy(u, t)
        return jnp.asarray(self.offset, energy.dtype) - energy

    def normalised(self, key: Key[Array, ""], num: int = 512) -> DensityField:
        """Return the field with the offset at which the density of t_max matches the Gaussian N(0, q) that it is.

        The offset is the mean of ``U(u, t_max) - |u|^2 / 2q - (D / 2) log(2 pi q)`` over ``num`` draws of u from that
        Gaussian: their fluctuations cancel, and where U is right up to a constant one draw would do. The remaining
        error is the relative entropy of the Gaussian to p(u | t_max), of order (a / b)^4.

        Args:
            key: PRNG key.
            num: number of draws, evaluated at once.

        Raises:
            ValueError: if the signal at t_max is not negligible, num is not positive, or the field has labels.
        """
        checks.integer("num", num, low=1)
        self._refuse_labels()
        schedule = self.process.schedule
        check_start(schedule)
        z = jax.random.normal(threefry(key), (num, *self.event_shape))
        t = jnp.full(num, schedule.t_max, z.dtype)
        c_in = (self.preconditioner or _GAUSSIAN).scales(self.predicted, t[0]).c_in
        gaussian = 0.5 * total(z * z) + self._dim * (0.5 * math.log(2.0 * math.pi) - jnp.log(c_in))
        return dataclasses.replace(self, offset=jnp.mean(self.energy(z / c_in, t) - gaussian))

    @property
    def _dim(self) -> int:
        return math.prod(self.event_shape)

    def _refuse_labels(self) -> None:
        if self.labels is not None:
            raise refused("labels", self.labels, "None, as only the density of all classes together is normalised")
