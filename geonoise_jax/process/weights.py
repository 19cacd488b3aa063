"""Loss weights w(t): what multiplies the squared error at noise level t.

The minimiser of the weighted loss sees *time law x weight* as the prior of the noise level, which is why the exact
field takes the same objects.
"""

from __future__ import annotations

import abc
import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float
from jaxtyping import ArrayLike as ArrayLike

from geonoise_jax import checks
from geonoise_jax.process.schedules import Schedule, as_time
from geonoise_jax.process.targets import Target


@dataclasses.dataclass(frozen=True)
class LossWeight(abc.ABC):
    """A positive function of the noise level.

    Attributes:
        schedule: the schedule that t belongs to.
    """

    schedule: Schedule

    @abc.abstractmethod
    def __call__(self, t: ArrayLike) -> Float[Array, "*t"]:
        """Return w(t), elementwise."""


@dataclasses.dataclass(frozen=True)
class Unit(LossWeight):
    """w = 1, equation (4) as it stands."""

    def __call__(self, t: ArrayLike) -> Float[Array, "*t"]:
        return jnp.ones_like(as_time(t))


@dataclasses.dataclass(frozen=True)
class NoisePower(LossWeight):
    """``w = b^exponent``; exponent 2 with the Score target is the weighting of Song & Ermon (2019)."""

    exponent: float = 2.0

    def __post_init__(self) -> None:
        """Validate a finite exponent."""
        checks.real_field(self, "exponent")

    def __call__(self, t: ArrayLike) -> Float[Array, "*t"]:
        return self.schedule.scales(as_time(t))[1] ** self.exponent


@dataclasses.dataclass(frozen=True)
class EDM(LossWeight):
    """EDM's ``(sigma^2 + sigma_data^2) / (sigma sigma_data)^2``, sigma = b / a, for the Signal target."""

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        """Validate sigma_data > 0."""
        checks.real_field(self, "sigma_data", low=0.0, open_low=True)

    def __call__(self, t: ArrayLike) -> Float[Array, "*t"]:
        return jnp.exp(-2.0 * self.schedule.eta(t)) + self.sigma_data**-2


@dataclasses.dataclass(frozen=True)
class Preconditioned(LossWeight):
    """``1 / c_out^2`` of the preconditioner of any target: ``(a^2 sigma_data^2 + b^2) / (sigma_data (a d - b c))^2``.

    It makes the weighted loss of a preconditioned network the plain squared error of what is inside (Karras et al.
    2022, appendix B.6). For (VE, Signal) it is :class:`EDM`. Not in ``LOSS_WEIGHTS``, whose members need only the
    schedule.

    Attributes:
        target: the target that is regressed.
        sigma_data: standard deviation of the data.
    """

    target: Target
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        """Validate sigma_data > 0."""
        checks.real_field(self, "sigma_data", low=0.0, open_low=True)

    def __call__(self, t: ArrayLike) -> Float[Array, "*t"]:
        coeffs = self.schedule.coeffs(t)
        c, d = self.target.coeffs(coeffs, t)
        det = coeffs.a * d - coeffs.b * c
        return (coeffs.a**2 + (coeffs.b / self.sigma_data) ** 2) / det**2


LOSS_WEIGHTS: tuple[type[LossWeight], ...] = (Unit, NoisePower, EDM)
