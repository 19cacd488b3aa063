r"""Noise schedules: the pair a(t), b(t) of a noisy observation ``u = a(t) x + b(t) eps``.

Time grows with noise; t = 0 is clean data. Notation of "The Geometry of Noise" (arXiv:2602.18428):

(2)  u = a x + b eps                        observation
(3)  SNR = a^2 / b^2 = exp(-2 eta)          with eta = log(b / a), the variable of every quadrature here

Every formula is written so that it keeps its relative accuracy in float32 at both ends of the range: ``b`` through
``expm1`` or a product of sines, never ``sqrt(1 - a * a)``; ``a`` near t = 1 through ``sin`` of the distance to 1.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from jaxtyping import ArrayLike as ArrayLike

from geonoise_jax import checks
from geonoise_jax.process.betas import BETAS, log_signal

_BISECTIONS = 80


class ScheduleCoeffs(NamedTuple):
    """Signal and noise scale at t, and their derivatives in t (all of the shape of t)."""

    a: Float[Array, "*t"]
    b: Float[Array, "*t"]
    da: Float[Array, "*t"]
    db: Float[Array, "*t"]


def as_time(t: ArrayLike) -> Float[Array, "*t"]:
    """Return t as a floating-point array; integers (discrete steps) become the default float type."""
    t = jnp.asarray(t)
    return t if jnp.issubdtype(t.dtype, jnp.floating) else t.astype(jnp.result_type(float))


@dataclasses.dataclass(frozen=True)
class Schedule(abc.ABC):
    """A noise schedule on ``[t_min, t_max]``.

    Subclasses define :meth:`scales`; derivatives follow by forward-mode differentiation and the inverse of ``eta`` by
    bisection, unless a subclass has a closed form (needed where an end point is singular).

    Attributes:
        t_min: smallest time used in training and sampling alike, in the schedule's own time unit.
        t_max: largest time, the start of sampling.
    """

    t_min: float = dataclasses.field(default=1e-3, kw_only=True)
    t_max: float = dataclasses.field(default=0.999, kw_only=True)

    TIME_RANGE: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Validate the fields; every error names the field and what it may be."""
        low, high = self.TIME_RANGE
        checks.real_field(self, "t_min", low=low, high=high)
        checks.real_field(self, "t_max", low=low, high=high)
        checks.ordered_fields(self, "t_min", "t_max")

    @abc.abstractmethod
    def scales(self, t: Float[Array, "*t"]) -> tuple[Float[Array, "*t"], Float[Array, "*t"]]:
        """Return ``(a(t), b(t))``, elementwise in t."""

    def coeffs(self, t: ArrayLike) -> ScheduleCoeffs:
        """Return ``(a, b, da/dt, db/dt)`` at t, elementwise, in the floating type of t."""
        t = as_time(t)
        (a, b), (da, db) = jax.jvp(self.scales, (t,), (jnp.ones_like(t),))
        return ScheduleCoeffs(a, b, da, db)

    @property
    def clean_signal(self) -> float:
        """The signal scale without noise, a(0)."""
        return 1.0

    def signal_deficit(self, t: ArrayLike) -> Float[Array, "*t"]:
        """Return ``a(0) - a(t)`` in full relative accuracy: the plain difference cancels at low noise."""
        return self.clean_signal - self.scales(as_time(t))[0]

    def eta(self, t: ArrayLike) -> Float[Array, "*t"]:
        """Return ``log(b / a)``, minus half the log signal-to-noise ratio; increasing in t."""
        a, b = self.scales(as_time(t))
        return jnp.log(b) - jnp.log(a)

    def log_snr(self, t: ArrayLike) -> Float[Array, "*t"]:
        """Return ``log(a^2 / b^2)``, equation (3)."""
        return -2.0 * self.eta(t)

    def t_of_eta(self, eta: ArrayLike) -> Float[Array, "*t"]:
        """Return the time at which ``log(b / a)`` equals eta: the inverse of :meth:`eta` on the schedule's range."""
        eta = as_time(eta)
        low, high = jnp.full_like(eta, self.t_min), jnp.full_like(eta, self.t_max)

        def halve(_: Array, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bracket
            middle = 0.5 * (low + high)
            below = self.eta(middle) < eta
            return jnp.where(below, middle, low), jnp.where(below, high, middle)

        low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, (low, high))
        return 0.5 * (low + high)


@dataclasses.dataclass(frozen=True)
class Linear(Schedule):
    """Flow matching and EqM: ``a = 1 - t``, ``b = t`` (Lipman et al. 2023; Liu et al. 2023)."""

    def scales(self, t: Float[Array, "*t"]) -> tuple[Float[Array, "*t"], Float[Array, "*t"]]:
        return 1.0 - t, t

    def signal_deficit(self, t: ArrayLike) -> Float[Array, "*t"]:
        return as_time(t)

    def t_of_eta(self, eta: ArrayLike) -> Float[Array, "*t"]:
        return jax.nn.sigmoid(as_time(eta))


@dataclasses.dataclass(frozen=True)
class VPLinear(Schedule):
    r"""Continuous variance-preserving schedule with a linear rate (Song et al. 2021).

    ``beta(t) = beta_min + t (beta_max - beta_min)``, ``log a = -1/2 \int_0^t beta``, ``b^2 = 1 - a^2``.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = dataclasses.field(default=1e-3, kw_only=True)
    t_max: float = dataclasses.field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.real_field(self, "beta_min", low=0.0, open_low=True)
        checks.real_field(self, "beta_max", low=0.0, open_low=True)
        checks.ordered_fields(self, "beta_min", "beta_max")

    def _log_a(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        return -t * (0.5 * self.beta_min + 0.25 * (self.beta_max - self.beta_min) * t)

    def scales(self, t: Float[Array, "*t"]) -> tuple[Float[Array, "*t"], Float[Array, "*t"]]:
        log_a = self._log_a(t)
        return jnp.exp(log_a), jnp.sqrt(-jnp.expm1(2.0 * log_a))

    def signal_deficit(self, t: ArrayLike) -> Float[Array, "*t"]:
        return -jnp.expm1(self._log_a(as_time(t)))

    def coeffs(self, t: ArrayLike) -> ScheduleCoeffs:
        t = as_time(t)
        a, b = self.scales(t)
        beta = self.beta_min + t * (self.beta_max - self.beta_min)
        return ScheduleCoeffs(a, b, -0.5 * beta * a, 0.5 * beta * a * a / b)

    def eta(self, t: ArrayLike) -> Float[Array, "*t"]:
        log_a = self._log_a(as_time(t))
        return 0.5 * jnp.log(-jnp.expm1(2.0 * log_a)) - log_a

    def t_of_eta(self, eta: ArrayLike) -> Float[Array, "*t"]:
        minus_log_a = 0.5 * jax.nn.softplus(2.0 * as_time(eta))
        half = 0.5 * self.beta_min
        root = jnp.sqrt(half * half + (self.beta_max - self.beta_min) * minus_log_a)
        return 2.0 * minus_log_a / (half + root)


@dataclasses.dataclass(frozen=True)
class Cosine(Schedule):
    """Cosine schedule (Nichol & Dhariwal 2021): ``a = cos(phi) / cos(phi_0)``, ``phi = (t + s) / (1 + s) pi / 2``.

    ``b^2 = 1 - a^2 = sin(phi - phi_0) sin(phi + phi_0) / cos(phi_0)^2``, a product without cancellation.
    """

    s: float = 0.008
    t_min: float = dataclasses.field(default=1e-3, kw_only=True)
    t_max: float = dataclasses.field(default=0.99, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.real_field(self, "s", low=0.0, open_low=True)

    @property
    def _rate(self) -> float:
        return 0.5 * math.pi / (1.0 + self.s)

    @property
    def _phi0(self) -> float:
        return self._rate * self.s

    def scales(self, t: Float[Array, "*t"]) -> tuple[Float[Array, "*t"], Float[Array, "*t"]]:
        cos0 = math.cos(self._phi0)
        product = jnp.sin(self._rate * t) * jnp.sin(self._rate * (t + 2.0 * self.s))
        return jnp.sin(self._rate * (1.0 - t)) / cos0, jnp.sqrt(product) / cos0

    def signal_deficit(self, t: ArrayLike) -> Float[Array, "*t"]:
        half = 0.5 * self._rate * as_time(t)
        return 2.0 * jnp.sin(half) * jnp.sin(half + self._phi0) / math.cos(self._phi0)

    def coeffs(self, t: ArrayLike) -> ScheduleCoeffs:
        t = as_time(t)
        a, b = self.scales(t)
        da = -self._rate * jnp.cos(self._rate * (1.0 - t)) / math.cos(self._phi0)
        return ScheduleCoeffs(a, b, da, -a * da / b)

    def t_of_eta(self, eta: ArrayLike) -> Float[Array, "*t"]:
        eta = as_time(eta)
        sin0, cos0 = math.sin(self._phi0), math.cos(self._phi0)
        b_squared = jax.nn.sigmoid(2.0 * eta)
        cos_phi = cos0 * jnp.sqrt(jax.nn.sigmoid(-2.0 * eta))
        sin_phi = jnp.sqrt(sin0 * sin0 + cos0 * cos0 * b_squared)
        # phi - phi_0 from its sine, (sin^2 phi - sin^2 phi_0) / sin(phi + phi_0): the difference itself would cancel.
        sin_delta = cos0 * cos0 * b_squared / (sin_phi * cos0 + cos_phi * sin0)
        return jnp.arctan2(sin_delta, cos_phi * cos0 + sin_phi * sin0) / self._rate


@dataclasses.dataclass(frozen=True)
class Trigonometric(Schedule):
    """Trigonometric interpolant (Albergo & Vanden-Eijnden 2023): ``a = cos(pi t / 2)``, ``b = sin(pi t / 2)``."""

    def scales(self, t: Float[Array, "*t"]) -> tuple[Float[Array, "*t"], Float[Array, "*t"]]:
        return jnp.sin(0.5 * math.pi * (1.0 - t)), jnp.sin(0.5 * math.pi * t)

    def signal_deficit(self, t: ArrayLike) -> Float[Array, "*t"]:
        return 2.0 * jnp.sin(0.25 * math.pi * as_time(t)) ** 2

    def coeffs(self, t: ArrayLike) -> ScheduleCoeffs:
        a, b = self.scales(as_time(t))
        return ScheduleCoeffs(a, b, -0.5 * math.pi * b, 0.5 * math.pi * a)

    def t_of_eta(self, eta: ArrayLike) -> Float[Array, "*t"]:
        return jnp.arctan(jnp.exp(as_time(eta))) * (2.0 / math.pi)


@dataclasses.dataclass(frozen=True)
class _NoiseLevelSchedule(Schedule):
    """Schedules whose time is the noise-to-signal ratio itself, ``b / a = t = sigma``."""

    t_min: float = dataclasses.field(default=0.002, kw_only=True)
    t_max: float = dataclasses.field(default=80.0, kw_only=True)

    TIME_RANGE: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def eta(self, t: ArrayLike) -> Float[Array, "*t"]:
        return jnp.log(as_time(t))

    def t_of_eta(self, eta: ArrayLike) -> Float[Array, "*t"]:
        return jnp.exp(as_time(eta))


@dataclasses.dataclass(frozen=True)
class VE(_NoiseLevelSchedule):
    """Variance exploding: ``a = 1``, ``b = t = sigma`` (Song et al. 2021; Karras et al. 2022)."""

    def scales(self, t: Float[Array, "*t"]) -> tuple[Float[Array, "*t"], Float[Array, "*t"]]:
        return jnp.ones_like(t), t


@dataclasses.dataclass(frozen=True)
class _ScaledNoiseLevel(_NoiseLevelSchedule):
    """VE observations divided by ``sqrt(t^2 + scale^2)``, so that the network's input has bounded variance."""

    @property
    def _scale(self) -> float:
        raise NotImplementedError

    def scales(self, t: Float[Array, "*t"]) -> tuple[Float[Array, "*t"], Float[Array, "*t"]]:
        a = jax.lax.rsqrt(t * t + self._scale**2)
        return a, t * a

    @property
    def clean_signal(self) -> float:
        return 1.0 / self._scale

    def signal_deficit(self, t: ArrayLike) -> Float[Array, "*t"]:
        t = as_time(t)
        a = self.scales(t)[0]
        return a * t * t / (self._scale * (self._scale + jnp.sqrt(t * t + self._scale**2)))

    def coeffs(self, t: ArrayLike) -> ScheduleCoeffs:
        t = as_time(t)
        a, b = self.scales(t)
        return ScheduleCoeffs(a, b, -t * a**3, self._scale**2 * a**3)


@dataclasses.dataclass(frozen=True)
class EDMScaled(_ScaledNoiseLevel):
    """EDM with its input scaling ``c_in`` in the observation: ``a = 1 / sqrt(t^2 + sigma_data^2)``, ``b = t a``.

    The EDM row of Sun et al. (2025), "Is noise conditioning necessary for denoising generative models?".
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.real_field(self, "sigma_data", low=0.0, open_low=True)

    @property
    def _scale(self) -> float:
        return self.sigma_data


@dataclasses.dataclass(frozen=True)
class UEDM(_ScaledNoiseLevel):
    """The unconditional-EDM schedule of Sun et al. (2025): ``a = 1 / sqrt(1 + t^2)``, ``b = t a``."""

    @property
    def _scale(self) -> float:
        return 1.0


@dataclasses.dataclass(frozen=True)
class VPDiscrete(Schedule):
    """Discrete variance-preserving schedules, ``a^2 = prod_{j <= t} (1 - beta_j)``, t in {1, ..., num_steps}.

    Between the integers log a is a once-differentiable cubic, so that continuous-time samplers keep their order.

    Attributes:
        num_steps: number T of steps.
        beta_min: first beta of the linear kind.
        beta_max: last beta of the linear kind.
        betas: ``"linear"``, DDPM's (Ho et al. 2020), or ``"cosine"``, improved DDPM's (Nichol & Dhariwal 2021), whose
            last steps leave next to no signal: choose t_max below num_steps, e.g. 990.
    """

    num_steps: int = 1000
    beta_min: float = 1e-4
    beta_max: float = 0.02
    betas: str = "linear"
    t_min: float = dataclasses.field(default=1.0, kw_only=True)
    t_max: float = dataclasses.field(default=1000.0, kw_only=True)

    TIME_RANGE: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.integer_field(self, "num_steps", low=2)
        checks.real_field(self, "beta_min", low=0.0, open_low=True)
        checks.real_field(self, "beta_max", low=0.0, open_low=True, high=0.999)
        checks.ordered_fields(self, "beta_min", "beta_max")
        checks.real_field(self, "t_max", low=0.0, high=float(self.num_steps))
        name = type(self).__name__
        checks.choice(f"{name}.betas", self.betas, BETAS)
        if self.betas != "linear":
            fields = {each.name: each.default for each in dataclasses.fields(self) if each.name.startswith("beta_")}
            unused = {f"{name}.{field}": (getattr(self, field), default) for field, default in fields.items()}
            checks.without_effect(f"betas = {self.betas!r}", unused)

    def _log_a(self, t: Float[Array, "*t"]) -> tuple[Float[Array, "*t"], Float[Array, "*t"]]:
        table = log_signal(self.betas, self.num_steps, self.beta_min, self.beta_max)
        index = jnp.clip(jnp.floor(t), 0, self.num_steps)
        s = t - index
        value, slope, quadratic, cubic = (jnp.asarray(column, t.dtype)[index.astype(jnp.int32)] for column in table)
        log_a = value + s * (slope + s * (quadratic + s * cubic))
        return log_a, slope + s * (2.0 * quadratic + 3.0 * s * cubic)

    def scales(self, t: Float[Array, "*t"]) -> tuple[Float[Array, "*t"], Float[Array, "*t"]]:
        log_a, _ = self._log_a(t)
        return jnp.exp(log_a), jnp.sqrt(-jnp.expm1(2.0 * log_a))

    def signal_deficit(self, t: ArrayLike) -> Float[Array, "*t"]:
        return -jnp.expm1(self._log_a(as_time(t))[0])

    def coeffs(self, t: ArrayLike) -> ScheduleCoeffs:
        t = as_time(t)
        a, b = self.scales(t)
        _, rate = self._log_a(t)
        return ScheduleCoeffs(a, b, a * rate, -a * a * rate / b)


SCHEDULES: tuple[type[Schedule], ...] = (Linear, VPLinear, VPDiscrete, Cosine, VE, Trigonometric, EDMScaled, UEDM)
