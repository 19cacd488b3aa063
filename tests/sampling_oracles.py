"""The exact field of a diagonal Gaussian, written out by hand, and what samplers must do on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.process.process import Process, expand
from geonoise_jax.process.schedules import Schedule
from geonoise_jax.process.targets import Target
from geonoise_jax.sampling import stepping

MEAN = np.array([1.0, -0.5, 0.2])
VAR = np.array([0.3, 1.5, 0.05])


@dataclasses.dataclass(frozen=True)
class GaussianField:
    """f_t = c D_t + (d / b)(u - a D_t) for data N(mean, diag(var)), quick to compile."""

    mean: Any
    var: Any
    process: Process
    blind: bool = False
    event_shape: tuple[int, ...] = MEAN.shape

    def __call__(self, u: jax.Array, t: jax.Array) -> jax.Array:
        k = [expand(each, u) for each in self.process.coeffs(t)]
        a, b, _, _, c, d = k
        mean, var = (jnp.asarray(each, u.dtype)[None] for each in (self.mean, self.var))
        denoised = mean + a * var / (a * a * var + b * b) * (u - a * mean)
        return c * denoised + d * (u - a * denoised) / b


jax.tree_util.register_dataclass(GaussianField, ["mean", "var"], ["process", "blind", "event_shape"])


def gaussian(schedule: Schedule, target: Target) -> GaussianField:
    """The field of N(MEAN, diag(VAR))."""
    return GaussianField(MEAN, VAR, Process(schedule, target))


def marginal_law(schedule: Schedule, t: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the observations at t."""
    a, b = (np.asarray(scale, np.float64) for scale in schedule.scales(jnp.asarray(t)))
    return a * MEAN, a**2 * VAR + b**2


def exact_flow(schedule: Schedule, u: Any, s: float, t: float) -> np.ndarray:
    """The sampling ODE of a Gaussian moves each coordinate with its standard deviation (t to s)."""
    (mean_s, var_s), (mean_t, var_t) = marginal_law(schedule, s), marginal_law(schedule, t)
    return mean_s + np.sqrt(var_s / var_t) * (np.asarray(u) - mean_t)


def final_law(
    monkeypatch: pytest.MonkeyPatch,
    sampler: Callable[..., Any],
    schedule: Schedule,
    target: Target,
    times: jax.Array,
    draws: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance in which a stochastic sampler ends on the Gaussian field, without sampling.

    A sampler is affine here, coordinate by coordinate, in its start and in every noise it draws: the variance is the
    sum of the squared answers to a unit of each. ``times`` may be a stack of grids, [grids, times].
    """
    field = gaussian(schedule, target)
    mean, var = marginal_law(schedule, schedule.t_max)
    grids = jnp.atleast_2d(times)
    num = draws * (grids.shape[1] - 1)
    # One row for the mean, one for the start, one for each draw.
    start = jnp.tile(jnp.asarray(mean, times.dtype), (num + 2, 1)).at[1].add(1.0)
    noise = jnp.eye(num, num + 2, 2, times.dtype)[:, :, None]

    def run(times: jax.Array) -> jax.Array:
        with monkeypatch.context() as patch:
            patch.setattr(stepping, "fresh_noise", lambda _keys, number, _like: noise[number])
            return sampler(field, start, times, jax.random.split(jax.random.key(0), num + 2))

    end = np.asarray(jax.jit(jax.vmap(run))(grids), np.float64)
    answers = np.square(end[:, 1:] - end[:, :1])
    means, variances = end[:, 0], answers[:, 0] * var + answers[:, 1:].sum(1)
    return (means, variances) if times.ndim == 2 else (means[0], variances[0])
