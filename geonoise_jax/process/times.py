"""Time laws: the density p(t) from which training draws noise levels, and the prior of the exact field.

Each law is truncated to ``[lo, hi]`` and normalised there. Sampling is by quantiles, so that a batch can be stratified:
one draw in each of n equal slices of probability, which lowers the variance of the loss (Kingma et al. 2021, I.1).
"""

from __future__ import annotations

import abc
import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.scipy.special import logit, ndtri
from jaxtyping import Array, Float, Key
from jaxtyping import ArrayLike as ArrayLike

from geonoise_jax import checks
from geonoise_jax.errors import UserError
from geonoise_jax.process.schedules import Schedule, as_time


class TimeLaw(abc.ABC):
    """A probability law of the noise level on ``[lo, hi]``, in the time unit of the schedule."""

    lo: float
    hi: float

    def __post_init__(self) -> None:
        """Validate lo < hi."""
        checks.real_field(self, "lo")
        checks.real_field(self, "hi")
        checks.ordered_fields(self, "lo", "hi")

    @abc.abstractmethod
    def _log_density_inside(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        """Log density at t, assuming lo <= t <= hi."""

    @abc.abstractmethod
    def _quantile(self, p: Float[Array, "*p"]) -> Float[Array, "*p"]:
        """Inverse distribution function, before clipping to [lo, hi]."""

    def log_density(self, t: ArrayLike) -> Float[Array, "*t"]:
        """Return log p(t), elementwise; minus infinity outside [lo, hi]. Discrete laws return log probabilities."""
        t = as_time(t)
        inside = (t >= self.lo) & (t <= self.hi)
        return jnp.where(inside, self._log_density_inside(jnp.clip(t, self.lo, self.hi)), -jnp.inf)

    def density(self, t: ArrayLike) -> Float[Array, "*t"]:
        """Return p(t), elementwise; zero outside [lo, hi]."""
        return jnp.exp(self.log_density(t))

    def quantile(self, p: ArrayLike) -> Float[Array, "*p"]:
        """Return the time below which a fraction p in [0, 1] of the law lies; always within [lo, hi]."""
        return jnp.clip(self._quantile(as_time(p)), self.lo, self.hi)

    def sample(self, key: Key[Array, ""], num: int, *, stratified: bool = False) -> Float[Array, "num"]:
        """Draw ``num`` times.

        Args:
            key: PRNG key.
            num: number of draws.
            stratified: draw the i-th time from the i-th of ``num`` slices of equal probability. Each draw still
                follows the law where i is exchangeable, as in a shuffled batch.

        Raises:
            ValueError: if num is not positive.
        """
        checks.integer("num", num, low=1)
        p = jax.random.uniform(key, (num,))
        if stratified:
            p = (jnp.arange(num, dtype=p.dtype) + p) / num
        return self.quantile(p)


@dataclasses.dataclass(frozen=True)
class Uniform(TimeLaw):
    """Uniform in t on [lo, hi]."""

    lo: float
    hi: float

    def _log_density_inside(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        return jnp.full_like(t, -math.log(self.hi - self.lo))

    def _quantile(self, p: Float[Array, "*p"]) -> Float[Array, "*p"]:
        return self.lo + p * (self.hi - self.lo)


@dataclasses.dataclass(frozen=True)
class LogUniform(TimeLaw):
    """Uniform in log t on [lo, hi], lo > 0."""

    lo: float
    hi: float

    def __post_init__(self) -> None:
        """Validate 0 < lo < hi."""
        super().__post_init__()
        checks.real_field(self, "lo", low=0.0, open_low=True)

    def _log_density_inside(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        return -jnp.log(t) - math.log(math.log(self.hi / self.lo))

    def _quantile(self, p: Float[Array, "*p"]) -> Float[Array, "*p"]:
        return self.lo * jnp.exp(p * math.log(self.hi / self.lo))


@dataclasses.dataclass(frozen=True)
class Discrete(TimeLaw):
    """Uniform over the integers lo, lo + 1, ..., hi; its density is the probability 1 / (hi - lo + 1) of each."""

    lo: int = 1
    hi: int = 1000

    def __post_init__(self) -> None:
        """Validate integers lo < hi."""
        checks.integer_field(self, "lo", low=0)
        checks.integer_field(self, "hi", low=0)
        checks.ordered_fields(self, "lo", "hi")

    @property
    def count(self) -> int:
        """Number of noise levels."""
        return self.hi - self.lo + 1

    def _log_density_inside(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        return jnp.where(t == jnp.round(t), -math.log(self.count), -jnp.inf).astype(t.dtype)

    def _quantile(self, p: Float[Array, "*p"]) -> Float[Array, "*p"]:
        return self.lo + jnp.floor(p * self.count)


class _TransformedNormal(TimeLaw):
    """Laws for which an increasing map of t is Gaussian before truncation."""

    mean: float
    std: float

    def __post_init__(self) -> None:
        """Validate the range, the Gaussian, and that the range holds some of its probability."""
        super().__post_init__()
        checks.real_field(self, "mean")
        checks.real_field(self, "std", low=0.0, open_low=True)
        if self._probability <= 0.0:
            name = type(self).__name__
            raise UserError(
                f"{name}.mean = {self.mean}, {name}.std = {self.std}: no probability is left on "
                f"[{self.lo}, {self.hi}]; choose a range nearer to the mean"
            )

    @abc.abstractmethod
    def _to_normal(self, t: float) -> float:
        """The increasing map at one of the ends; infinite at the ends of its domain."""

    @property
    def _standard_ends(self) -> tuple[float, float]:
        low, high = ((self._to_normal(end) - self.mean) / self.std for end in (self.lo, self.hi))
        return low, high

    @property
    def _probability(self) -> float:
        """Probability of [lo, hi] before truncation, from the tail in which it is most precise."""
        low, high = self._standard_ends
        return _normal_cdf(-low) - _normal_cdf(-high) if low > 0 else _normal_cdf(high) - _normal_cdf(low)

    def _log_normal_density(self, z: Float[Array, "*t"]) -> Float[Array, "*t"]:
        constant = math.log(self.std * math.sqrt(2.0 * math.pi) * self._probability)
        return -0.5 * ((z - self.mean) / self.std) ** 2 - constant

    def _normal_quantile(self, p: Float[Array, "*p"]) -> Float[Array, "*p"]:
        low, high = self._standard_ends
        below = _normal_cdf(low) + p * self._probability
        above = _normal_cdf(-high) + (1.0 - p) * self._probability
        # Each half is inverted from its own tail, where probabilities are small and precise in float32.
        return self.mean + self.std * jnp.where(below < above, ndtri(below), -ndtri(above))


@dataclasses.dataclass(frozen=True)
class LogNormal(_TransformedNormal):
    """EDM's training law: log t is Gaussian (Karras et al. 2022), truncated to [lo, hi], lo >= 0."""

    mean: float = -1.2
    std: float = 1.2
    lo: float = 0.002
    hi: float = 80.0

    def __post_init__(self) -> None:
        """Validate 0 <= lo < hi and std > 0."""
        checks.real_field(self, "lo", low=0.0)
        super().__post_init__()

    def _to_normal(self, t: float) -> float:
        return math.log(t) if t > 0 else -math.inf

    def _log_density_inside(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        # exp(-inf) at t = 0 is the right limit, but inf - inf is not: the logarithm is kept finite.
        log_t = jnp.log(jnp.maximum(t, jnp.finfo(t.dtype).tiny))
        return self._log_normal_density(log_t) - log_t

    def _quantile(self, p: Float[Array, "*p"]) -> Float[Array, "*p"]:
        return jnp.exp(self._normal_quantile(p))


@dataclasses.dataclass(frozen=True)
class LogitNormal(_TransformedNormal):
    """log(t / (1 - t)) is Gaussian (Esser et al. 2024), truncated to [lo, hi] within [0, 1]."""

    mean: float = 0.0
    std: float = 1.0
    lo: float = 0.0
    hi: float = 1.0

    def __post_init__(self) -> None:
        """Validate 0 <= lo < hi <= 1 and std > 0."""
        checks.real_field(self, "lo", low=0.0, high=1.0)
        checks.real_field(self, "hi", low=0.0, high=1.0)
        super().__post_init__()

    def _to_normal(self, t: float) -> float:
        if t <= 0.0:
            return -math.inf
        return math.log(t) - math.log1p(-t) if t < 1.0 else math.inf

    def _log_density_inside(self, t: Float[Array, "*t"]) -> Float[Array, "*t"]:
        # The density vanishes at 0 and 1 faster than any power: stepping inside changes nothing but removes inf - inf.
        info = jnp.finfo(t.dtype)
        t = jnp.clip(t, info.tiny, 1.0 - 0.5 * info.eps)
        return self._log_normal_density(logit(t)) - jnp.log(t) - jnp.log1p(-t)

    def _quantile(self, p: Float[Array, "*p"]) -> Float[Array, "*p"]:
        return jax.nn.sigmoid(self._normal_quantile(p))


def _normal_cdf(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2.0))


TIME_LAWS: tuple[type[TimeLaw], ...] = (Uniform, LogUniform, LogNormal, LogitNormal, Discrete)


def check_within(law: TimeLaw, schedule: Schedule) -> None:
    """Refuse a time law that leaves the schedule's range.

    Raises:
        ValueError: naming both ranges.
    """
    if law.lo < schedule.t_min or law.hi > schedule.t_max:
        raise UserError(
            f"time_law: [lo, hi] = [{law.lo:g}, {law.hi:g}] must lie within the schedule's "
            f"[t_min, t_max] = [{schedule.t_min:g}, {schedule.t_max:g}], which sampling covers"
        )
