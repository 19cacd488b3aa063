"""Exponential moving averages of the parameters."""

from __future__ import annotations

import dataclasses
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from geonoise_jax import checks
from geonoise_jax.errors import UserError


@runtime_checkable
class EMA(Protocol):
    """A rule for how much of the old average is kept."""

    def decay(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """Return the weight of the old average at update ``step``, counted from 1, in jax's default precision."""


@dataclasses.dataclass(frozen=True)
class Constant:
    """``ema <- rate ema + (1 - rate) params``.

    Attributes:
        rate: weight of the old average.
        warmup: use ``min(rate, (1 + step) / (10 + step))``, which forgets the initial parameters soon.
    """

    rate: float = 0.999
    warmup: bool = False

    def __post_init__(self) -> None:
        """Validate 0 <= rate <= 1 and a bool."""
        checks.real_field(self, "rate", low=0.0, high=1.0)
        if not isinstance(self.warmup, bool):
            raise UserError(f"Constant.warmup = {self.warmup!r}: must be True or False")

    def decay(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """Return the weight of the old average at update ``step``, counted from 1."""
        rate = jnp.asarray(self.rate, jnp.result_type(float))
        return jnp.minimum(rate, (1.0 + step) / (10.0 + step)) if self.warmup else rate


@dataclasses.dataclass(frozen=True)
class Power:
    """Power-function average (Karras et al. 2024, "Analyzing and improving the training dynamics", section 3.1).

    The weight of the parameters at step s in the average at step t is proportional to s^gamma, a profile whose width
    is a fixed fraction of the training so far; ``decay(t) = (1 - 1/t)^(gamma + 1)``.

    Attributes:
        sigma_rel: standard deviation of the profile relative to t, in (0, 0.28].
    """

    sigma_rel: float = 0.1

    def __post_init__(self) -> None:
        """Validate sigma_rel; above 1 / sqrt(12) = 0.2887 the exponent would be negative."""
        checks.real_field(self, "sigma_rel", low=0.0, open_low=True, high=0.28)

    @property
    def gamma(self) -> float:
        """Exponent of the profile: sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3))."""
        inverse = self.sigma_rel**-2
        return float(np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse]).real.max())

    def decay(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """Return the weight of the old average at update ``step``, counted from 1."""
        return (1.0 - 1.0 / step.astype(jnp.result_type(float))) ** (self.gamma + 1.0)


@dataclasses.dataclass(frozen=True)
class Ramped:
    """An average with a half-life that grows with the training until it is ``half_life`` (Karras et al. 2022).

    Attributes:
        half_life: number of updates after which the weight of old parameters is halved.
        ramp: early in the training the half-life is this share of the updates done; 0 for no ramp.
    """

    half_life: float = 1000.0
    ramp: float = 0.05

    def __post_init__(self) -> None:
        """Validate half_life > 0 and ramp >= 0."""
        checks.real_field(self, "half_life", low=0.0, open_low=True)
        checks.real_field(self, "ramp", low=0.0)

    def decay(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """Return the weight of the old average at update ``step``, counted from 1."""
        half_life = jnp.asarray(self.half_life, jnp.result_type(float))
        if self.ramp:
            half_life = jnp.minimum(half_life, self.ramp * step)
        return 0.5 ** (1.0 / half_life)


EMAS = {"constant": Constant, "power": Power, "ramped": Ramped}


def update(ema: EMA, average: PyTree[Array], params: PyTree[Array], step: Int[Array, ""]) -> PyTree[Array]:
    """Return the average after update ``step``, counted from 1: computed as precisely as the decay, then rounded."""
    kept = ema.decay(step)

    def weigh(old: Array, new: Array) -> Array:
        return (kept * old.astype(kept.dtype) + (1.0 - kept) * new.astype(kept.dtype)).astype(old.dtype)

    return jax.tree.map(weigh, average, params)
