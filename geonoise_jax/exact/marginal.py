r"""The exact fields of one data distribution, one process and one prior of the noise level.

Numbers of "The Geometry of Noise" (arXiv:2602.18428); D_t, R_t = u - a D_t of :mod:`geonoise_jax.exact.base`; averages
E[.] over the posterior p(t | u), proportional to p(u | t) p(t):

(5)       f_t = c D_t + (d / b) R_t                        conditional optimum
(6, 7)    f* = E[f_t]                                      blind optimum
(1, 8)    E(u) = -log p(u),  p(u) = int p(u | t) p(t) dt   marginal energy
(9, 10)   grad E = E[grad E_t],  grad E_t = R_t / b^2
(14, 56)  f* = E[lambda] grad E + E[(lambda - E lambda)(grad E_t - grad E)] + E[c / a] u

By (15) ``lambda / b^2 = d / b - c / a``, so that the first two terms of (14) together are ``E[(d / b - c / a) R_t]``:
the transport correction is found without subtracting the drift, which may be a thousand times larger.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from jaxtyping import ArrayLike as ArrayLike

from geonoise_jax.checks import real, refused, shown
from geonoise_jax.errors import UserError
from geonoise_jax.exact import analysis, errors
from geonoise_jax.exact.analysis import ALONG_RESIDUAL, ENERGY_GRAD, SIGNAL, TARGET, Pair
from geonoise_jax.exact.base import Distribution, Level, compiled_average, compiled_project, compiled_scores
from geonoise_jax.exact.delivery import deliver, in_blocks
from geonoise_jax.exact.errors import Error
from geonoise_jax.exact.integral import Integral, average, integrate
from geonoise_jax.exact.prior import LossWeight, Prior
from geonoise_jax.exact.pytrees import Frozen, pytree
from geonoise_jax.exact.quadrature import ORDER, Rule
from geonoise_jax.exact.results import Analysis, Decomposition, Posterior
from geonoise_jax.exact.survey import chart_of
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import as_time
from geonoise_jax.process.times import TimeLaw

_DEFAULT_ACCURACY = {8: 1e-11, 4: 1e-5}  # by bytes per number
# Numbers of one query that are alive at once, beside what its distribution needs, and what they may take.
_PER_GRID_POINT, _PER_NODE, _BLOCK_BYTES = 12, 24, 2**30
_RANGE_SLACK = 1e-5
_NEGLIGIBLE_DENSITY = 1e-30


@pytree(data=("distribution",), static=("prior", "accuracy", "adaptive"))
class Marginal(Frozen):
    """The law of ``u = a x + b eps`` with x from a distribution and t from a prior, and the fields it defines.

    A pytree: the arrays of the distribution may change from call to call of a jitted function without a new trace.
    Everything is differentiable in u.

    Attributes:
        distribution: the law of the data.
        prior: the law of t, ``time_law x loss_weight`` normalised: the minimiser of the weighted loss depends on that
            product.
        accuracy: relative accuracy of integrals over t; None for 1e-11 in float64, 1e-5 in float32.
        adaptive: give every query its own nodes; otherwise all share those of a fixed rule.
    """

    distribution: Distribution
    prior: Prior
    accuracy: float | None
    adaptive: bool

    def __init__(
        self,
        distribution: Distribution,
        process: Process,
        time_law: TimeLaw,
        loss_weight: LossWeight | None = None,
        *,
        accuracy: float | None = None,
        adaptive: bool = True,
    ) -> None:
        """Pair a distribution with a process and a prior.

        Raises:
            ValueError: if the time law reaches beyond the schedule, the loss weight is not positive and finite, or
                ``accuracy`` is not in (0, 1).
        """
        if not isinstance(distribution, Distribution):
            raise refused("Marginal.distribution", distribution, "a Distribution, such as FiniteSet(points)")
        if accuracy is not None:
            accuracy = real("Marginal.accuracy", accuracy, low=0.0, high=1.0, open_low=True, open_high=True)
        prior = Prior(process, time_law, loss_weight)
        self._set(distribution=distribution, prior=prior, accuracy=accuracy, adaptive=adaptive)

    def __repr__(self) -> str:
        """Return the law, the process and the prior."""
        prior = [f"{self.process!r}", f"{self.prior.time_law!r}"]
        prior += [] if self.prior.loss_weight is None else [f"loss_weight={shown(self.prior.loss_weight)}"]
        prior += [] if self.accuracy is None else [f"accuracy={self.accuracy:g}"]
        return f"Marginal({', '.join([repr(self.distribution), *prior])})"

    @property
    def process(self) -> Process:
        """Schedule and target."""
        return self.prior.process

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one event."""
        return self.distribution.event_shape

    def accuracy_in(self, dtype: Any) -> float:
        """Return the relative accuracy of integrals over t for queries of this dtype."""
        return self.accuracy or _DEFAULT_ACCURACY[jnp.dtype(dtype).itemsize]

    # Averages over the posterior of the noise level; u: [B, *event].

    def log_density(self, u: Float[Array, "B *event"]) -> Float[Array, "B"]:
        """Return log p(u), equation (8).

        Raises:
            ValueError: if u has another event shape.
        """

        def log_density(law: Marginal, flat: Float[Array, "B D"]) -> tuple[Array, Error]:
            integral = law._integrate(flat)
            return integral.log_density, errors.of_log_density(integral, law.distribution.dim)

        return self._deliver(log_density, u)

    def energy(self, u: Float[Array, "B *event"]) -> Float[Array, "B"]:
        """Return the marginal energy ``E = -log p(u)``, equation (1)."""
        return -self.log_density(u)

    def energy_grad(self, u: Float[Array, "B *event"]) -> Float[Array, "B *event"]:
        """Return the gradient of the marginal energy, equation (9)."""
        return self._mean_of(u, ENERGY_GRAD)

    def energy_hvp(self, u: Float[Array, "B *event"], v: Float[Array, "B *event"]) -> Float[Array, "B *event"]:
        """Return the product of the Hessian of the marginal energy at u with v."""
        return jax.jvp(self.energy_grad, (u,), (v,))[1]

    def field(self, u: Float[Array, "B *event"]) -> Float[Array, "B *event"]:
        """Return the blind optimum ``f*(u) = E[f_t(u) | u]``, equations (6, 7)."""
        return self._mean_of(u, TARGET)

    def posterior_denoiser(self, u: Float[Array, "B *event"]) -> Float[Array, "B *event"]:
        """Return ``E[x | u]``, the denoiser of an observation of unknown noise level."""
        return self._mean_of(u, SIGNAL)

    def inverse_noise_moment(self, u: Float[Array, "B *event"], q: float) -> Float[Array, "B"]:
        """Return ``E[b^-q | u]``."""

        def moment(law: Marginal, flat: Float[Array, "B D"]) -> tuple[Array, Error]:
            integral = law._integrate(flat)
            powers = integral.nodes.coeffs.b ** (-q)
            return (integral.weights * powers).sum(-1), errors.of_average(integral, powers)

        return self._deliver(moment, u)

    def posterior(self, u: Float[Array, "B *event"]) -> Posterior:
        """Return the posterior p(t | u) of the noise level, equation (36)."""

        def posterior(law: Marginal, flat: Float[Array, "B D"]) -> tuple[Posterior, Error]:
            integral = law._integrate(flat)
            error = errors.of_posterior(integral)
            return analysis.posterior(integral, error, self.prior.is_discrete), error

        return analysis.trimmed(self._deliver(posterior, u))

    def decompose(self, u: Float[Array, "B *event"]) -> Decomposition:
        """Return the blind field as natural gradient, transport correction and drift, equation (14).

        Raises:
            ValueError: if the mean gain or the mean drift scale is infinite, as a vanishes where the prior does not.
        """
        problem = self.mean_gain_problem()
        if problem:
            raise UserError(problem)

        def decompose(law: Marginal, flat: Float[Array, "B D"]) -> tuple[Decomposition, Error]:
            integral = law._integrate(flat)
            pairs = [pair(integral.nodes.coeffs) for pair in (TARGET, ENERGY_GRAD, ALONG_RESIDUAL)]
            fields = average(law.distribution, integral, pairs)
            error = errors.worst(
                analysis.decomposition_error(integral),
                *(errors.of_field(integral, pair, field) for pair, field in zip(pairs[:2], fields, strict=False)),
            )
            return analysis.decomposition(integral, flat, *fields), error

        parts = self._deliver(decompose, u)
        return Decomposition(*(x.reshape(u.shape) if x.ndim > 1 else x for x in parts))

    def mean_gain_problem(self) -> str:
        """Say why :meth:`decompose` does not exist, or return an empty string where it does.

        Gain and drift scale grow near a = 0 like the reciprocal of the distance to it in t, and their means over a
        prior that does not vanish there like its logarithm.
        """
        law = self.prior.time_law
        with jax.ensure_compile_time_eval(), jax.enable_x64(True):
            end = jnp.asarray(law.hi, jnp.float64)
            finite = bool(jnp.isfinite(self.process.gain(end)) & jnp.isfinite(self.process.drift_scale(end)))
            negligible = bool(law.density(end) < _NEGLIGIBLE_DENSITY)
        if finite or negligible:
            return ""
        return (
            f"the mean gain and the mean drift scale are infinite: a = 0 at t = {law.hi:g}, where the time law "
            f"{law} does not vanish (they grow like log 1 / a(t_max)); choose {type(law).__name__}.hi "
            f"< {law.hi:g}, e.g. 0.999 of it, or a law that vanishes there"
        )

    def analyse(self, u: Float[Array, "B *event"], t: Float[ArrayLike, "*#B"] | None = None) -> Analysis:
        """Return every quantity above at once, for the cost of one integral rather than of one for each.

        Args:
            u: observations.
            t: their noise levels, a scalar or [B], in [t_min, t_max]; None if they are not known.

        Returns:
            With ``decomposition`` None where :meth:`decompose` raises, and ``conditional`` None if t is.

        Raises:
            ValueError: if u has another event shape, or t lies outside [t_min, t_max].
        """
        pairs = [TARGET, ENERGY_GRAD, SIGNAL, *([] if self.mean_gain_problem() else [ALONG_RESIDUAL])]

        def analyse(law: Marginal, flat: Float[Array, "B D"], *times: Float[Array, "B"]) -> tuple[Analysis, Error]:
            integral = law._integrate(flat)
            rows = [pair(integral.nodes.coeffs) for pair in pairs]
            fields = average(law.distribution, integral, rows)
            found = analysis.errors_of(integral, rows, fields)
            blind = analysis.blind(integral, flat, fields, found, self.prior.is_discrete)
            if times:
                at_level = law._at_level(flat, times[0], (TARGET, SIGNAL, ENERGY_GRAD), integral.projection)
                given = analysis.conditional(self.process, blind, flat, times[0], at_level)
                blind = blind._replace(conditional=given)
            return blind, errors.worst(*found.values())

        times = () if t is None else (self._times(self.distribution.flatten(u), t),)
        return analysis.shaped(self._deliver(analyse, u, *times), jnp.shape(u))

    # Quantities at one given noise level; t: a scalar or [B], in [t_min, t_max].

    def denoiser(self, u: Float[Array, "B *event"], t: Float[ArrayLike, "*#B"]) -> Float[Array, "B *event"]:
        """Return ``D_t(u) = E[x | u, t]``, equation (35).

        Raises:
            ValueError: if u has another event shape, or t lies outside [t_min, t_max].
        """
        return self._at(u, t, SIGNAL)

    def conditional_field(self, u: Float[Array, "B *event"], t: Float[ArrayLike, "*#B"]) -> Float[Array, "B *event"]:
        """Return the conditional optimum ``f_t(u)``, equation (5).

        Raises:
            ValueError: if u has another event shape, or t lies outside [t_min, t_max].
        """
        return self._at(u, t, TARGET)

    def energy_grad_at(self, u: Float[Array, "B *event"], t: Float[ArrayLike, "*#B"]) -> Float[Array, "B *event"]:
        """Return ``grad E_t(u) = -grad log p(u | t)``, equation (10).

        Raises:
            ValueError: if u has another event shape, or t lies outside [t_min, t_max].
        """
        return self._at(u, t, ENERGY_GRAD)

    def log_density_at(self, u: Float[Array, "B *event"], t: Float[ArrayLike, "*#B"]) -> Float[Array, "B"]:
        """Return log p(u | t) in nats, the density of an observation at a known noise level, equation (36).

        Raises:
            ValueError: if u has another event shape, or t lies outside [t_min, t_max].
        """
        flat = self.distribution.flatten(u)
        return in_blocks(self._log_density_at, self._block(flat), flat, self._times(flat, t))

    def estimation_error(self, u: Float[Array, "B *event"], t: Float[ArrayLike, "*#B"]) -> Float[Array, "B"]:
        """Return ``|f*(u) - f_t(u)|``, the error of a blind field at noise level t, equation (22).

        Raises:
            ValueError: if u has another event shape, or t lies outside [t_min, t_max].
        """
        return analysis.norm(self.field(u) - self.conditional_field(u, t))

    def jensen_gap(self, u: Float[Array, "B *event"], t: Float[ArrayLike, "*#B"]) -> Float[Array, "B"]:
        """Return ``b_t E[1 / b | u] - 1``, equation (66).

        Raises:
            ValueError: if u has another event shape, or t lies outside [t_min, t_max].
        """
        b = self.process.coeffs(self._times(self.distribution.flatten(u), t)).b
        return b * self.inverse_noise_moment(u, 1.0) - 1.0

    def _integrate(self, flat: Float[Array, "B D"]) -> Integral:
        return integrate(self.distribution, self.prior, self._rule(flat.dtype), flat)

    def _rule(self, dtype: Any) -> Rule:
        return Rule(self.accuracy_in(dtype), self.adaptive, self.distribution.dim)

    def _mean_of(self, u: Float[Array, "B *event"], pair: Pair) -> Float[Array, "B *event"]:
        """Return ``E[alpha D_t + beta R_t | u]``."""

        def mean(law: Marginal, flat: Float[Array, "B D"]) -> tuple[Array, Error]:
            integral = law._integrate(flat)
            coefficients = pair(integral.nodes.coeffs)
            value = average(law.distribution, integral, [coefficients])[0]
            return value, errors.of_field(integral, coefficients, value)

        return self._deliver(mean, u).reshape(jnp.shape(u))

    def _at(self, u: Float[Array, "B *event"], t: ArrayLike, pair: Pair) -> Float[Array, "B *event"]:
        """Return ``alpha D_t + beta R_t`` at one noise level per query."""
        flat = self.distribution.flatten(u)
        times = self._times(flat, t)
        at = in_blocks(lambda flat, times: self._at_level(flat, times, (pair,))[0], self._block(flat), flat, times)
        return at.reshape(jnp.shape(u))

    def _at_level(
        self, flat: Float[Array, "B D"], times: Float[Array, "B"], pairs: Sequence[Pair], projection: Any = None
    ) -> Float[Array, "J B D"]:
        """Return ``alpha D_t + beta R_t`` for several pairs, on a projection of the queries if one is known."""
        law, k, level = self.distribution, self.process.coeffs(times[:, None]), self._level(times)
        if projection is None:
            projection = compiled_project(law, flat, self.process.schedule.clean_signal)
        alpha, beta = (jnp.stack(rows) for rows in zip(*(pair(k) for pair in pairs), strict=True))
        return compiled_average(law, projection, level, compiled_scores(law, projection, level), alpha, beta)

    def _log_density_at(self, flat: Float[Array, "B D"], times: Float[Array, "B"]) -> Float[Array, "B"]:
        law = self.distribution
        projection = compiled_project(law, flat, self.process.schedule.clean_signal)
        scores = compiled_scores(law, projection, self._level(times))
        return scores.relative[:, 0] + scores.offset

    def _level(self, times: Float[Array, "B"]) -> Level:
        """Return one level per query, [B, 1]."""
        schedule = self.process.schedule
        return Level(*schedule.scales(times[:, None]), schedule.signal_deficit(times[:, None]))

    def _times(self, flat: Float[Array, "B D"], t: ArrayLike) -> Float[Array, "B"]:
        """Give every query its own time; refuse times outside the schedule's range, where they are known."""
        low, high = self.process.schedule.t_min, self.process.schedule.t_max
        slack = _RANGE_SLACK * (high - low)
        if not isinstance(t, jax.core.Tracer):
            known = np.asarray(t, np.float64)
            if not np.all((known >= low - slack) & (known <= high + slack)):
                raise UserError(f"t = {known}: must lie within [t_min, t_max] = [{low:g}, {high:g}]")
        return jnp.broadcast_to(as_time(t).astype(flat.dtype), (len(flat),))

    def _deliver(self, function: Callable[..., Any], u: Float[Array, "B *event"], *others: Float[Array, "B"]) -> Any:
        """Apply ``function(marginal, flattened queries, *others)``, in blocks, to the accuracy that is asked for."""
        flat = self.distribution.flatten(u)

        def of(law: Marginal) -> Callable[..., Any]:
            def in_one(*arrays: Array) -> Any:
                value, error = function(law, *arrays)
                return value, error.T

            def compute(*arrays: Array) -> Any:
                value, error = in_blocks(in_one, law._block(arrays[0]), *arrays)
                return value, error.T

            return compute

        def sharper() -> Callable[..., Any] | None:
            law = self.distribution.sharpened()
            return None if law is None else of(self._of(law))

        accuracy, remedy = self.accuracy_in(flat.dtype), self.distribution.rounding_remedy
        return deliver(of(self), sharper, accuracy, remedy, flat, *others)

    def _of(self, distribution: Distribution) -> Marginal:
        """Return the same marginal of a distribution that is computed otherwise."""
        law = copy.copy(self)
        law._set(distribution=distribution)
        return law

    def _block(self, flat: Float[Array, "B D"]) -> int:
        """Return how many queries are worked on at once."""
        prior, dtype = self.prior, flat.dtype
        if prior.is_discrete:
            numbers = _PER_NODE * int(prior.time_law.hi - prior.time_law.lo + 1)
        else:
            chart = chart_of(prior, prior.domain(dtype), self.distribution.dim, sparse=False)
            numbers = _PER_GRID_POINT * len(chart.eta) + _PER_NODE * ORDER * self._rule(dtype).most_panels(chart)
        fitting = max(1, _BLOCK_BYTES // (numbers * dtype.itemsize))
        return min(fitting, self.distribution.query_block(dtype) or fitting)
