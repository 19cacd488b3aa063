r"""Regression targets: the pair c(t), d(t) of ``r = c(t) x + d(t) eps`` that the network predicts.

Equation (4) of "The Geometry of Noise" (arXiv:2602.18428), L = E ||f(u) - (c x + d eps)||^2, and its Table 1. A target
is a function of the schedule's coefficients and of t alone, so that every target is defined on every schedule.
"""

from __future__ import annotations

import abc
import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float
from jaxtyping import ArrayLike as ArrayLike

from geonoise_jax import checks
from geonoise_jax.process.schedules import ScheduleCoeffs, as_time

TargetCoeffs = tuple[Float[Array, "*t"], Float[Array, "*t"]]


class Target(abc.ABC):
    """A regression target ``r = c x + d eps``."""

    @property
    def kinks(self) -> tuple[float, ...]:
        """Times at which c or d is continuous but not smooth: a quadrature over t puts panel edges there."""
        return ()

    @abc.abstractmethod
    def coeffs(self, schedule_coeffs: ScheduleCoeffs, t: ArrayLike) -> TargetCoeffs:
        """Return ``(c, d)``, elementwise, from the schedule's ``(a, b, da, db)`` at t and t itself."""


@dataclasses.dataclass(frozen=True)
class Noise(Target):
    """The noise: ``r = eps`` (Ho et al. 2020)."""

    def coeffs(self, schedule_coeffs: ScheduleCoeffs, t: ArrayLike) -> TargetCoeffs:  # noqa: ARG002
        a = schedule_coeffs[0]
        return jnp.zeros_like(a), jnp.ones_like(a)


@dataclasses.dataclass(frozen=True)
class Signal(Target):
    """The clean signal: ``r = x``; the EDM row of the paper when the schedule is VE."""

    def coeffs(self, schedule_coeffs: ScheduleCoeffs, t: ArrayLike) -> TargetCoeffs:  # noqa: ARG002
        a = schedule_coeffs[0]
        return jnp.ones_like(a), jnp.zeros_like(a)


@dataclasses.dataclass(frozen=True)
class Velocity(Target):
    """The velocity along the interpolation, ``r = da x + db eps = du/dt`` (flow matching, stochastic interpolants)."""

    def coeffs(self, schedule_coeffs: ScheduleCoeffs, t: ArrayLike) -> TargetCoeffs:  # noqa: ARG002
        _, _, da, db = schedule_coeffs
        return da, db


@dataclasses.dataclass(frozen=True)
class VPrediction(Target):
    """v-prediction, ``r = a eps - b x`` (Salimans & Ho 2022)."""

    def coeffs(self, schedule_coeffs: ScheduleCoeffs, t: ArrayLike) -> TargetCoeffs:  # noqa: ARG002
        a, b, _, _ = schedule_coeffs
        return -b, a


@dataclasses.dataclass(frozen=True)
class Score(Target):
    """The score of the corruption kernel, ``r = -eps / b = grad_u log p(u | x, t)`` (Song et al. 2021)."""

    def coeffs(self, schedule_coeffs: ScheduleCoeffs, t: ArrayLike) -> TargetCoeffs:  # noqa: ARG002
        b = schedule_coeffs[1]
        return jnp.zeros_like(b), -1.0 / b


@dataclasses.dataclass(frozen=True)
class Equilibrium(Target):
    """Equilibrium matching, ``r = g(t) (eps - x)`` (Wang & Du 2025).

    The released EqM code has the opposite sign and time: it regresses ``(x - eps) g`` and adds it, with time 1 - t.

    Attributes:
        decay: ``"linear"``, g = multiplier * t, or ``"truncated"``, g = multiplier * min(1, t / plateau).
        plateau: time above which the truncated decay is constant (their 1 - 0.8).
        multiplier: gradient multiplier lambda; None means 1 for the linear and 4 for the truncated decay.
    """

    decay: str = "linear"
    plateau: float = 0.2
    multiplier: float | None = None

    def __post_init__(self) -> None:
        """Validate the fields."""
        checks.choice("Equilibrium.decay", self.decay, ("linear", "truncated"))
        checks.real_field(self, "plateau", low=0.0, open_low=True)
        if self.multiplier is not None:
            checks.real_field(self, "multiplier", low=0.0, open_low=True)

    @property
    def kinks(self) -> tuple[float, ...]:
        return (self.plateau,) if self.decay == "truncated" else ()

    def decay_factor(self, t: ArrayLike) -> Float[Array, "*t"]:
        """Return ``g(t)``."""
        t = as_time(t)
        if self.decay == "linear":
            return (1.0 if self.multiplier is None else self.multiplier) * t
        return (4.0 if self.multiplier is None else self.multiplier) * jnp.minimum(1.0, t / self.plateau)

    def coeffs(self, schedule_coeffs: ScheduleCoeffs, t: ArrayLike) -> TargetCoeffs:  # noqa: ARG002
        g = self.decay_factor(t)
        return -g, g


@dataclasses.dataclass(frozen=True)
class EDMNetwork(Target):
    """What the raw network F inside the EDM preconditioner regresses (Karras et al. 2022, equation 8).

    With sigma = b / a and q = sigma^2 + sigma_data^2: ``c = sigma / (sigma_data sqrt(q))``,
    ``d = -sigma_data / sqrt(q)``. Written in a and b it has a limit at a = 0.
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        """Validate sigma_data > 0."""
        checks.real_field(self, "sigma_data", low=0.0, open_low=True)

    def coeffs(self, schedule_coeffs: ScheduleCoeffs, t: ArrayLike) -> TargetCoeffs:  # noqa: ARG002
        a, b, _, _ = schedule_coeffs
        scale = jnp.sqrt(b * b + (self.sigma_data * a) ** 2)
        return b / (self.sigma_data * scale), -self.sigma_data * a / scale


@dataclasses.dataclass(frozen=True)
class UEDM(Target):
    """The uEDM network target of Sun et al. (2025): the EDM skip connection with ``c_out = 1``.

    With sigma = b / a and q = sigma^2 + sigma_data^2: ``c = sigma^2 / q``, ``d = -sigma sigma_data^2 / q``.
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        """Validate sigma_data > 0."""
        checks.real_field(self, "sigma_data", low=0.0, open_low=True)

    def coeffs(self, schedule_coeffs: ScheduleCoeffs, t: ArrayLike) -> TargetCoeffs:  # noqa: ARG002
        a, b, _, _ = schedule_coeffs
        q = b * b + (self.sigma_data * a) ** 2
        return b * b / q, -a * b * self.sigma_data**2 / q


TARGETS: tuple[type[Target], ...] = (Noise, Signal, Velocity, VPrediction, Score, Equilibrium, EDMNetwork, UEDM)
