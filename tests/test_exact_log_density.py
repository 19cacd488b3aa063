"""The density of an observation at a known noise level, against closed forms and sums written out."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from geonoise_jax.exact import FiniteSet, Gaussian, Marginal
from geonoise_jax.process import schedules, targets
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import Schedule
from geonoise_jax.process.times import Uniform

RNG = np.random.default_rng(0)
SCHEDULES = [schedules.Linear(), schedules.VE(t_min=0.01, t_max=20.0), schedules.EDMScaled()]


def marginal(law: Any, schedule: Schedule) -> Marginal:
    return Marginal(law, Process(schedule, targets.Signal()), Uniform(schedule.t_min, schedule.t_max))


def levels(schedule: Schedule) -> tuple[np.ndarray, list[np.ndarray]]:
    """Times over the whole range, and a and b there."""
    times = np.concatenate([[schedule.t_min, schedule.t_max], RNG.uniform(schedule.t_min, schedule.t_max, 4)])
    return times, [np.asarray(scale) for scale in schedule.scales(jnp.asarray(times))]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
def test_log_density_of_a_gaussian(schedule: Schedule, x64: None) -> None:
    """u at t is N(a mean, a^2 cov + b^2 I), each query at its own t."""
    mean, root = RNG.standard_normal(3), RNG.standard_normal((3, 3))
    cov = root @ root.T
    times, (a, b) = levels(schedule)
    u = a[:, None] * mean + (a + b)[:, None] * RNG.standard_normal((6, 3))
    want = [
        multivariate_normal.logpdf(u[i], a[i] * mean, a[i] ** 2 * cov + b[i] ** 2 * np.eye(3), allow_singular=True)
        for i in range(6)
    ]
    got = marginal(Gaussian(mean, cov), schedule).log_density_at(jnp.asarray(u), jnp.asarray(times))
    np.testing.assert_allclose(got, want, rtol=1e-9)


def brute_force(points: np.ndarray, weights: np.ndarray, u: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    square = ((u[:, None] - a[:, None, None] * points) ** 2).sum(-1)
    exponents = np.log(weights) - square / (2 * b[:, None] ** 2)
    return logsumexp(exponents, axis=1) - points.shape[1] * np.log(b * np.sqrt(2 * np.pi))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_log_density_of_points(schedule: Schedule, dtype: str, x64: None) -> None:
    """Noisy images near a datum, at all noise levels; the density is high and narrow where b is small."""
    points, weights = RNG.standard_normal((7, 4, 3)).astype(dtype), np.arange(1.0, 8.0) / 28.0
    times, (a, b) = (jax.tree.map(lambda x: np.asarray(x, dtype), each) for each in levels(schedule))
    drawn = points[[0, 1, 2, 3, 4, 5]], RNG.standard_normal((6, 4, 3))
    u = (a[:, None, None] * drawn[0] + b[:, None, None] * drawn[1]).astype(dtype)
    law = marginal(FiniteSet(jnp.asarray(points), weights), schedule)
    got = law.log_density_at(jnp.asarray(u), jnp.asarray(times))
    assert got.dtype == dtype
    rows = (np.asarray(each, np.float64).reshape(len(each), -1) for each in (points, u))
    exact_points, exact_u = rows
    k = schedule.scales(jnp.asarray(np.asarray(times, np.float64)))
    want = brute_force(exact_points, weights, exact_u, *(np.asarray(scale) for scale in k))
    np.testing.assert_allclose(got, want, atol=2e-3 if dtype == "float32" else 1e-9, rtol=1e-6)


def test_one_time_for_all_derivatives_and_bad_times() -> None:
    """Its gradient is that of the energy at t; it is the density whose mixture over t is the marginal one."""
    law = marginal(Gaussian(jnp.zeros(3), 0.5), schedules.Linear())
    u = jnp.asarray(RNG.standard_normal((4, 3)), jnp.float32)
    np.testing.assert_allclose(law.log_density_at(u, 0.5), law.log_density_at(u, jnp.full(4, 0.5)), rtol=1e-6)
    slope = jax.grad(lambda u: law.log_density_at(u, 0.5).sum())(u)
    np.testing.assert_allclose(slope, -law.energy_grad_at(u, 0.5), rtol=1e-4)
    with pytest.raises(ValueError, match=r"^t = 2.0: must lie within"):
        law.log_density_at(u, 2.0)
    with pytest.raises(ValueError, match=r"u.shape = \[4, 2\]"):
        law.log_density_at(u[:, :2], 0.5)
