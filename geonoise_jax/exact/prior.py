r"""The prior of the noise level, time law x loss weight, in the variable of the quadratures.

With eta = log(b / a), increasing in t, ``p(t) dt = p(t(eta)) / (b'/b - a'/a) d eta``.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from geonoise_jax.errors import UserError
from geonoise_jax.exact.base import Level
from geonoise_jax.exact.shapes import GRID, LEAST, elementwise
from geonoise_jax.process.process import Coeffs, Process
from geonoise_jax.process.times import Discrete, TimeLaw

LossWeight = Callable[[Float[Array, "*t"]], Float[Array, "*t"]]

_SLACK = 1e-6
_PANELS, _ORDER = 512, 16
_PROBE_STRIDE = 80


class Nodes(NamedTuple):
    """Noise levels with the prior's density or probability at each.

    Attributes:
        t: times.
        coeffs: coefficients of the process at t.
        level: what distributions need of them.
        log_prior: log density per unit eta; log probability for a discrete law.
        log_rate: ``log(dt / d eta)``; zero for a discrete law.
    """

    t: Float[Array, "*node"]
    coeffs: Coeffs
    level: Level
    log_prior: Float[Array, "*node"]
    log_rate: Float[Array, "*node"]


class Domain(NamedTuple):
    """The range of eta that carries the prior.

    Attributes:
        low, high: ends; finite, also where b(t_min) = 0 or a(t_max) = 0.
        open_low: whether ``low`` cuts off an infinite range.
        kinks: where the integrand is not smooth, inside the range, increasing.
        log_b: log b at equidistant points of the range, both ends included.
    """

    low: float
    high: float
    open_low: bool
    kinks: tuple[float, ...]
    log_b: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Prior:
    """Density of t proportional to ``time_law x loss_weight``, for one process.

    Attributes:
        process: schedule and target.
        time_law: the training density.
        loss_weight: positive function of t, or None for 1. Where it is continuous but not smooth it may say so in an
            attribute ``kinks``, a tuple of times.
    """

    process: Process
    time_law: TimeLaw
    loss_weight: LossWeight | None = None

    def __post_init__(self) -> None:
        """Refuse time laws that reach beyond the schedule, and loss weights that are not positive."""
        schedule, law = self.process.schedule, self.time_law
        slack = _SLACK * (schedule.t_max - schedule.t_min)
        if law.lo < schedule.t_min - slack or law.hi > schedule.t_max + slack:
            raise UserError(
                f"{type(law).__name__} is a law on [{law.lo:g}, {law.hi:g}]: it must lie within the schedule's "
                f"[t_min, t_max] = [{schedule.t_min:g}, {schedule.t_max:g}]"
            )
        if not math.isfinite(self.log_normalizer):
            raise UserError(f"loss_weight = {self.loss_weight!r}: must be positive and finite on [{law.lo}, {law.hi}]")

    @property
    def is_discrete(self) -> bool:
        """Whether integrals over t are sums."""
        return isinstance(self.time_law, Discrete)

    @functools.cached_property
    def log_normalizer(self) -> float:
        """Logarithm of the integral of ``time_law x loss_weight``."""
        if self.loss_weight is None:
            return 0.0
        with jax.ensure_compile_time_eval(), jax.enable_x64(True):
            if self.is_discrete:
                log_terms = np.asarray(self._log_unnormalised(self._integers(jnp.float64)))
            else:
                eta, log_weight = _composite(self.domain(np.float64))
                log_terms = np.asarray(elementwise(self._at_eta, jnp.asarray(eta), GRID).log_prior) + log_weight
        top = log_terms.max()
        if not np.isfinite(top):
            return float(top)
        return float(top + np.log(np.exp(log_terms - top).sum()))

    def domain(self, dtype: Any) -> Domain:
        """Return the range of integration, in which b / a and a / b stay above the precision of ``dtype``."""
        return _domain(self, jnp.dtype(dtype))

    def _domain(self, dtype: Any) -> Domain:
        with jax.ensure_compile_time_eval(), jax.enable_x64(True):
            law, schedule = self.time_law, self.process.schedule
            marks = (*self.process.parameterization.kinks, *getattr(self.loss_weight, "kinks", ()))
            inside = [t for t in marks if law.lo < t < law.hi]
            low, high, *kinks = (float(schedule.eta(jnp.asarray(t, jnp.float64))) for t in (law.lo, law.hi, *inside))
            floor = math.log(float(jnp.finfo(dtype).eps))
            low, high, is_open = max(low, floor), min(high, -floor), low < floor
            probes = jnp.asarray(np.linspace(low, high, GRID))
            b = elementwise(lambda eta: self.process.coeffs(schedule.t_of_eta(eta)).b, probes, GRID)[::_PROBE_STRIDE]
        return Domain(low, high, is_open, tuple(sorted(kinks)), tuple(np.log(np.asarray(b)).tolist()))

    def at_eta(self, eta: Float[Array, "*node"], least: int = LEAST) -> Nodes:
        """Return nodes at given values of ``log(b / a)``; for ``least`` see :func:`.shapes.elementwise`."""
        return elementwise(lambda eta: self._at_eta(eta, self.log_normalizer), eta, least)

    def at_integers(self, dtype: Any) -> Nodes:
        """Return all nodes of a discrete law."""
        t = self._integers(dtype)
        return self._nodes(t, self._log_unnormalised(t) - self.log_normalizer, jnp.zeros_like(t))

    def _at_eta(self, eta: Float[Array, "*node"], log_normalizer: float = 0.0) -> Nodes:
        law = self.time_law
        t = jnp.clip(self.process.schedule.t_of_eta(eta), law.lo, law.hi)
        a, b, da, db = self.process.schedule.coeffs(t)
        log_rate = -jnp.log(db / b - da / a)
        return self._nodes(t, self._log_unnormalised(t) + log_rate - log_normalizer, log_rate)

    def _nodes(self, t: Float[Array, "*node"], log_prior: Float[Array, "*node"], log_rate: Array) -> Nodes:
        k = self.process.coeffs(t)
        return Nodes(t, k, Level(k.a, k.b, self.process.schedule.signal_deficit(t)), log_prior, log_rate)

    def _log_unnormalised(self, t: Float[Array, "*node"]) -> Float[Array, "*node"]:
        log_p = self.time_law.log_density(t)
        return log_p if self.loss_weight is None else log_p + jnp.log(self.loss_weight(t))

    def _integers(self, dtype: Any) -> Float[Array, "T"]:
        return jnp.arange(int(self.time_law.lo), int(self.time_law.hi) + 1).astype(dtype)


@functools.lru_cache(maxsize=256)
def _domain(prior: Prior, dtype: Any) -> Domain:
    return prior._domain(dtype)


def _composite(domain: Domain) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and log weights of a fine composite Gauss-Legendre rule with panel edges at the kinks."""
    edges = np.unique([*np.linspace(domain.low, domain.high, _PANELS + 1), *domain.kinks])
    x, w = np.polynomial.legendre.leggauss(_ORDER)
    half = 0.5 * np.diff(edges)[:, None]
    return (0.5 * (edges[:-1] + edges[1:])[:, None] + half * x).ravel(), np.log(half * w).ravel()
