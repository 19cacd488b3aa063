r"""What a data distribution must give for its optimal fields to be exact.

Notation of "The Geometry of Noise" (arXiv:2602.18428), u = a x + b eps:

(36)  p(u | t)                     density of the observation at one noise level
(35)  D_t(u) = E[x | u, t]         denoiser
      R_t(u) = u - a D_t(u) = b E[eps | u, t] = b^2 grad E_t(u)       residual

Every field of the paper is linear in D and R:

(5)   f_t = c D_t + (d / b) R_t
(10)  grad E_t = R_t / b^2

D and R are formed separately, each without cancellation, because ``u - a D`` loses all its digits where b is small.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key
from jaxtyping import ArrayLike as ArrayLike

from geonoise_jax.errors import UserError
from geonoise_jax.exact.pytrees import Frozen

LOG_2PI = float(np.log(2.0 * np.pi))


class Level(NamedTuple):
    """A noise level: ``u = a x + b eps``, with the signal lost to noise given apart.

    Attributes:
        a: signal scale.
        b: noise scale.
        deficit: ``a(0) - a`` in full relative accuracy.
    """

    a: Float[Array, "*level"]
    b: Float[Array, "*level"]
    deficit: Float[Array, "*level"]


class Scores(NamedTuple):
    """Log densities ``log p(u | t) = relative + offset`` of a query at several levels.

    They are kept apart because differences between levels, of which the posterior of t is made, are small beside the
    values themselves: D log b alone has a rounding error of 1e-3 in float32 at D = 3072.

    Attributes:
        relative: [B, T].
        offset: [B].
        cache: what :meth:`Distribution.average` needs of the same pass, defined by the distribution.
        blur: rounding error of ``relative`` in nats, [B, T]; None where it is that of the working precision.
        grain: more of it, independent from level to level, [B, T]; None for none.
        mixing: that of the weights of points against each other, averaged over the points, [B, T]; None as before.
        length: about how long the events are that u may stem from, [B]; None for sqrt(D), that of unit scale.
        residual: about how long ``R_t`` is, [B, T]; None for b sqrt(D).
        coarseness: rounding error of that length, [B, T]; None as for ``blur``.
    """

    relative: Float[Array, "B T"]
    offset: Float[Array, "B"]
    cache: Any = None
    blur: Float[Array, "B T"] | None = None
    grain: Float[Array, "B T"] | None = None
    mixing: Float[Array, "B T"] | None = None
    length: Float[Array, "B"] | None = None
    residual: Float[Array, "B T"] | None = None
    coarseness: Float[Array, "B T"] | None = None


class Anchor(NamedTuple):
    """A point x_* for every query: ``|u - a x_*|^2 = residual2 + 2 o cross + o^2 centre2``, o the level's deficit.

    Attributes:
        residual2, cross, centre2: coefficients, each [B, 1].
        information: the largest information in nats that u can give on x, ``max KL(p(x | u, t) || p(x))``.
    """

    residual2: Float[Array, "B 1"]
    cross: Float[Array, "B 1"]
    centre2: Float[Array, "B 1"]
    information: Float[Array, ""]


class Distribution(Frozen, abc.ABC):
    """A law of the data x for which p(u | t) and E[x | u, t] are known in closed form.

    Instances are pytrees: their arrays may change from call to call of a jitted function without a new trace.
    Subclasses work on flattened events, u: [B, D], in three steps: :meth:`project` computes once what is needed of u at
    every noise level, :meth:`scores` and :meth:`average` then work on any number of levels.
    """

    event_shape: tuple[int, ...]

    @property
    def dim(self) -> int:
        """Number of entries D of one event."""
        return int(np.prod(self.event_shape, dtype=int))

    @property
    def rounding_remedy(self) -> str:
        """What helps where an average is not accurate for rounding."""
        return "compute in float64 (jax_enable_x64), or ask for a larger accuracy"

    @abc.abstractmethod
    def sample(self, key: Key[Array, ""], num: int) -> Float[Array, "num *event"]:
        """Draw ``num`` events."""

    @abc.abstractmethod
    def project(self, u: Float[Array, "B D"], signal: float) -> Any:
        """Return what :meth:`scores` and :meth:`average` need of u, a pytree.

        Args:
            u: flattened observations.
            signal: signal scale without noise a(0), of which a level's ``deficit`` is the distance.
        """

    @abc.abstractmethod
    def scores(self, projection: Any, level: Level, used: Bool[Array, "B T"] | None = None) -> Scores:
        """Return log p(u | t) at levels [B, T]; any finite numbers at levels that are not ``used``."""

    @abc.abstractmethod
    def average(
        self,
        projection: Any,
        level: Level,
        scores: Scores,
        alpha: Float[Array, "J B T"],
        beta: Float[Array, "J B T"],
    ) -> Float[Array, "J B D"]:
        """Return ``sum_t (alpha D_t(u) + beta R_t(u))``, for J pairs of coefficients at once.

        Args:
            projection: from :meth:`project`.
            level: [B, T].
            scores: from :meth:`scores` at the same levels.
            alpha, beta: coefficients.
        """

    def anchor(self, projection: Any) -> Anchor | None:  # noqa: ARG002
        """Return what bounds log p(u | t) between levels; None if it costs so little that many levels may be asked."""
        return None

    def focus(self, projection: Any, u: Float[Array, "B D"], level: Level, signal: float) -> Any:  # noqa: ARG002
        """Return the projection of u that is most accurate at one level for each query, [B]."""
        return projection

    def least_variance(self, level: Level) -> Float[Array, "B T"]:
        """Return the smallest variance of u in any direction, beside which its rounding is to be seen."""
        return level.b * level.b

    def sharpened(self) -> Distribution | None:
        """Return the same law, computed with less rounding error at more cost; None where there is no such way."""
        return None

    def query_block(self, dtype: Any) -> int | None:  # noqa: ARG002
        """Return how many queries may be worked on at once; None for any number."""
        return None

    def log_density(
        self, u: Float[Array, "B *event"], a: Float[ArrayLike, "*#B"], b: Float[ArrayLike, "*#B"]
    ) -> Float[Array, "B"]:
        """Return the log density of ``u = a x + b eps``, equation (36).

        Args:
            u: observations, [B, *event].
            a: signal scale, a scalar or [B].
            b: noise scale, positive, a scalar or [B].

        Raises:
            ValueError: if u has another event shape.
        """
        _, _, scores = self._at(self.flatten(u), a, b)
        return scores.relative[:, 0] + scores.offset

    def denoiser(
        self, u: Float[Array, "B *event"], a: Float[ArrayLike, "*#B"], b: Float[ArrayLike, "*#B"]
    ) -> Float[Array, "B *event"]:
        """Return the posterior mean ``E[x | u]`` where ``u = a x + b eps``, equation (35).

        Args:
            u: observations, [B, *event].
            a: signal scale, a scalar or [B].
            b: noise scale, positive, a scalar or [B].

        Raises:
            ValueError: if u has another event shape.
        """
        projection, level, scores = self._at(self.flatten(u), a, b)
        one = jnp.ones_like(level.a)[None]
        return compiled_average(self, projection, level, scores, one, 0.0 * one)[0].reshape(jnp.shape(u))

    def _at(self, flat: Float[Array, "B D"], a: ArrayLike, b: ArrayLike) -> tuple[Any, Level, Scores]:
        """Return projection, level and scores at one level per observation."""
        projection, level = compiled_project(self, flat, 1.0), _levels(a, b, flat)
        return projection, level, compiled_scores(self, projection, level)

    def flatten(self, u: Float[Array, "B *event"]) -> Float[Array, "B D"]:
        """Return observations as rows.

        Raises:
            ValueError: if u has another event shape.
        """
        u = jnp.asarray(u)
        if u.ndim != len(self.event_shape) + 1 or u.shape[1:] != self.event_shape:
            expected = ", ".join(["B", *map(str, self.event_shape)])
            raise UserError(f"u.shape = {list(u.shape)}: must be [{expected}], events of this {type(self).__name__}")
        if not jnp.issubdtype(u.dtype, jnp.floating):
            u = u.astype(jnp.result_type(float))
        return u.reshape(len(u), -1)


# The three steps know nothing of processes and priors: compiled apart, they are compiled once for all of them.
@functools.partial(jax.jit, static_argnums=2)
def compiled_project(distribution: Distribution, u: Float[Array, "B D"], signal: float) -> Any:
    """Return ``distribution.project(u, signal)``."""
    return distribution.project(u, signal)


@functools.partial(jax.jit, static_argnums=4)
def compiled_focus(
    distribution: Distribution, projection: Any, u: Float[Array, "B D"], level: Level, signal: float
) -> Any:
    """Return ``distribution.focus(projection, u, level, signal)``."""
    return distribution.focus(projection, u, level, signal)


@jax.jit
def compiled_scores(
    distribution: Distribution, projection: Any, level: Level, used: Bool[Array, "B T"] | None = None
) -> Scores:
    """Return ``distribution.scores(projection, level, used)``."""
    return distribution.scores(projection, level, used)


@jax.jit
def compiled_average(
    distribution: Distribution,
    projection: Any,
    level: Level,
    scores: Scores,
    alpha: Float[Array, "J B T"],
    beta: Float[Array, "J B T"],
) -> Float[Array, "J B D"]:
    """Return ``distribution.average(projection, level, scores, alpha, beta)``."""
    return distribution.average(projection, level, scores, alpha, beta)


def centre_node(values: Float[Array, "B T"]) -> Float[Array, "B 1"]:
    """Return the middle level of each query, to which scores are relative."""
    middle = values.shape[1] // 2
    return values[:, middle : middle + 1]


def log_ratio(values: Float[Array, "..."], reference: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return ``log(values / reference)``, with small relative error also where the two nearly agree."""
    return jnp.log1p((values - reference) / reference)


def over_levels(function: Callable[[Level], Array], level: Level, used: Bool[Array, "B T"] | None) -> Array:
    """Map a function of a level [B] over the levels of [B, T] that any query uses; the results' first axis is T."""
    levels = Level(*(values.T for values in level))
    if used is None:
        return jax.lax.map(function, levels)
    like = jax.eval_shape(function, Level(*(values[0] for values in levels)))
    zero, any_uses = jnp.zeros(like.shape, like.dtype), used.any(axis=0)
    return jax.lax.map(lambda node: jax.lax.cond(node[0], function, lambda _: zero, node[1]), (any_uses, levels))


def average_over_levels(
    moments: Callable[[Level], tuple[Array, Array]],
    level: Level,
    alpha: Float[Array, "J B T"],
    beta: Float[Array, "J B T"],
) -> Float[Array, "J B *local"]:
    """Accumulate ``sum_t (alpha D_t + beta R_t)`` one level at a time, so that memory does not grow with T.

    Args:
        moments: maps a level of shape [B] to the pair (D, R), each [B, *local].
        level: noise levels, [B, T].
        alpha, beta: coefficients.
    """

    def accumulate(total: Array, node: tuple[Level, Array, Array]) -> tuple[Array, None]:
        at, alpha_t, beta_t = node

        def added() -> Array:
            mean, residual = moments(at)
            expand = (..., *(None,) * (mean.ndim - 1))
            return total + alpha_t[expand] * mean[None] + beta_t[expand] * residual[None]

        return jax.lax.cond(jnp.any(alpha_t != 0.0) | jnp.any(beta_t != 0.0), added, lambda: total), None

    nodes = Level(*(values.T for values in level))
    local = jax.eval_shape(moments, Level(*(values[0] for values in nodes)))[0]
    start = jnp.zeros((len(alpha), *local.shape), jnp.result_type(local.dtype, alpha.dtype))
    return jax.lax.scan(accumulate, start, (nodes, jnp.moveaxis(alpha, -1, 0), jnp.moveaxis(beta, -1, 0)))[0]


def _levels(a: ArrayLike, b: ArrayLike, u: Float[Array, "B D"]) -> Level:
    """Give every observation its own level, [B, 1]."""
    a, b = (jnp.broadcast_to(jnp.asarray(x, u.dtype), (len(u),))[:, None] for x in (a, b))
    return Level(a, b, 1.0 - a)
