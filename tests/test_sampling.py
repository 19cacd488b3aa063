"""Samplers on the exact Gaussian field: convergence order, terminal law, independence of batching and devices."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from geonoise_jax.exact import Gaussian, Marginal
from geonoise_jax.fields import ExactField, Field
from geonoise_jax.process import grids, schedules, targets
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import SCHEDULES, Schedule
from geonoise_jax.process.targets import TARGETS, Target
from geonoise_jax.process.times import Uniform
from geonoise_jax.sampling import sample, trajectory
from geonoise_jax.sampling.ode import EVALUATIONS_PER_STEP, SOLVERS

MEAN = np.array([1.0, -0.5, 0.2])
VAR = np.array([0.3, 1.5, 0.05])
PAIRS = [
    pytest.param(schedule(), target(), id=f"{schedule.__name__}-{target.__name__}")
    for schedule, target in itertools.product(SCHEDULES, TARGETS)
]


def gaussian_field(schedule: Schedule, target: Target) -> ExactField:
    law = Uniform(schedule.t_min, schedule.t_max)
    gaussian = Gaussian(jnp.asarray(MEAN), jnp.asarray(VAR))
    return ExactField(Marginal(gaussian, Process(schedule, target), law), blind=False)


def exact_flow(schedule: Schedule, u: Any, s: float, t: float) -> np.ndarray:
    """The sampling ODE of a Gaussian moves each coordinate with its standard deviation (t to s)."""
    (a_s, b_s), (a_t, b_t) = (np.asarray(schedule.scales(jnp.asarray(time))) for time in (s, t))
    ratio = np.sqrt((a_s**2 * VAR + b_s**2) / (a_t**2 * VAR + b_t**2))
    return a_s * MEAN + ratio * (np.asarray(u) - a_t * MEAN)


@pytest.mark.parametrize(("schedule", "target"), PAIRS)
def test_convergence_order(schedule: Schedule, target: Target, x64: None) -> None:
    """Halving the step divides the error by 2 (Euler) and by 4 (Heun)."""
    field = gaussian_field(schedule, target)
    u = Process(schedule, target).start(jax.random.key(0), (16, 3))
    steps = (200, 400)

    @jax.jit
    def solve(u: jax.Array) -> dict[str, list[jax.Array]]:
        return {name: [solver(field, u, grids.log_snr(schedule, n)) for n in steps] for name, solver in SOLVERS.items()}

    want = exact_flow(schedule, u, schedule.t_min, schedule.t_max)
    for name, results in solve(u).items():
        coarse, fine = (np.abs(np.asarray(result) - want).max() for result in results)
        assert coarse < 0.2
        assert math.log2(coarse / fine) == pytest.approx(EVALUATIONS_PER_STEP[name], abs=0.1)


@pytest.mark.parametrize(("schedule", "target"), PAIRS)
def test_terminal_mean_and_variance(schedule: Schedule, target: Target) -> None:
    """In float32, from the schedule's own start: samples have the mean and variance of the data."""
    num = 8192
    samples = sample(gaussian_field(schedule, target), jax.random.key(3), num, num_steps=64, grid="log_snr")
    a, b = (float(scale) for scale in schedule.scales(jnp.asarray(schedule.t_min)))
    a_max, b_max = (float(scale) for scale in schedule.scales(jnp.asarray(schedule.t_max)))
    spread = VAR + (b / a) ** 2
    # What starting from pure noise leaves out, exactly: the data's part of the start.
    start_error = a_max * np.abs(MEAN) / np.sqrt(a_max**2 * VAR + b_max**2)
    mean_tolerance = np.sqrt(spread) * (4.5 / math.sqrt(num) + start_error) + 2e-3
    np.testing.assert_array_less(np.abs(samples.mean(axis=0) - MEAN), mean_tolerance)
    variance_tolerance = 4.5 * math.sqrt(2 / num) + (a_max / b_max) ** 2 * VAR + 5e-3
    np.testing.assert_array_less(np.abs(samples.var(axis=0) / spread - 1.0), variance_tolerance)


def test_trajectory_ends_where_the_solver_does() -> None:
    schedule = schedules.Linear()
    field = gaussian_field(schedule, targets.Velocity())
    u, times = jax.random.normal(jax.random.key(0), (4, 3)), grids.uniform(schedule, 10)
    for name, solver in SOLVERS.items():
        path = trajectory(name, field, u, times)
        assert path.shape == (11, 4, 3)
        np.testing.assert_array_equal(path[0], u)
        np.testing.assert_allclose(path[-1], solver(field, u, times), rtol=1e-6)
    with pytest.raises(ValueError, match="solver = 'rk4': must be one of euler, heun"):
        trajectory("rk4", field, u, times)


def test_euler_on_flow_matching_is_the_discrete_step() -> None:
    """Where x and eps are held constant over a step, Euler on the velocity is exact: kappa = 1, eta = s - t."""
    process = Process(schedules.Linear(), targets.Velocity())
    kappa, eta = process.step(0.2, 0.7)
    np.testing.assert_allclose([kappa, eta], [1.0, -0.5], rtol=1e-6)


def test_denoise_removes_the_noise_that_is_left() -> None:
    schedule = schedules.Linear(t_min=0.2)
    field = gaussian_field(schedule, targets.Velocity())
    options: dict[str, Any] = {"num": 4096, "num_steps": 50}
    noisy = sample(field, jax.random.key(0), **options)
    np.testing.assert_allclose(noisy.var(axis=0), VAR + 0.25**2, rtol=0.1)
    clean = sample(field, jax.random.key(0), **options, denoise=True)
    np.testing.assert_allclose(clean.var(axis=0), VAR**2 / (VAR + 0.25**2), rtol=0.1)


@pytest.mark.parametrize("schedule", [schedules.EDMScaled(), schedules.VE()])
def test_samples_are_in_data_space(schedule: Schedule) -> None:
    """The observation at t_min is divided by a(t_min), which is 2 for EDM's scaled schedule."""
    samples = sample(gaussian_field(schedule, targets.EDMNetwork()), jax.random.key(0), 4096, grid="rho", num_steps=40)
    np.testing.assert_allclose(samples.std(axis=0), np.sqrt(VAR), rtol=0.06)


def test_batching_and_devices_change_nothing() -> None:
    field = gaussian_field(schedules.Linear(), targets.Velocity())
    mesh = Mesh(np.asarray(jax.devices()).reshape(4, 2), ("data", "model"))
    whole = sample(field, jax.random.key(5), 21, num_steps=5)
    calls: list[tuple[int, int]] = []
    report = lambda done, num: calls.append((done, num))  # noqa: E731
    parts = sample(field, jax.random.key(5), 21, num_steps=5, batch_size=7, mesh=mesh, on_batch=report)
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6)
    assert calls == [(8, 21), (16, 21), (21, 21)]
    assert len(np.unique(whole, axis=0)) == 21


def test_start_from_data() -> None:
    schedule = schedules.Linear(t_max=0.3)
    field = gaussian_field(schedule, targets.Velocity())
    with pytest.raises(ValueError, match="not negligible"):
        sample(field, jax.random.key(0), 4)
    x = MEAN + np.sqrt(VAR) * np.random.default_rng(0).standard_normal((4096, 3))
    samples = sample(field, jax.random.key(0), 4096, x=x.astype(np.float32), num_steps=20)
    np.testing.assert_allclose(samples.var(axis=0), VAR, rtol=0.1)
    # Little noise was added, so each sample stays near its datum.
    assert np.corrcoef(samples[:, 1], x[:, 1])[0, 1] > 0.9


@dataclasses.dataclass(frozen=True)
class Scaled:
    """A field with one parameter that counts how often it is traced."""

    scale: jax.Array
    process: Process
    counter: list[int]
    blind: bool = True
    event_shape: tuple[int, ...] = (2,)

    def __call__(self, u: jax.Array, t: jax.Array) -> jax.Array:  # noqa: ARG002
        self.counter.append(1)
        return self.scale * u


class _Hashable(list):
    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)


jax.tree_util.register_dataclass(Scaled, ["scale"], ["process", "counter", "blind", "event_shape"])


def test_new_parameters_do_not_retrace() -> None:
    counter = _Hashable()
    process = Process(schedules.Linear(), targets.Velocity())
    results = []
    for value in (0.5, 1.0, 2.0):
        field = Scaled(jnp.asarray(value), process, counter)
        assert isinstance(field, Field)
        results.append(sample(field, jax.random.key(0), 3, num_steps=4))
        traced = len(counter)
    assert traced == EVALUATIONS_PER_STEP["heun"]
    assert not np.allclose(results[0], results[1])


BAD: list[tuple[dict[str, Any], str]] = [
    ({"sampler": "rk4"}, "sampler = 'rk4': must be one of euler, heun"),
    ({"grid": "karras"}, "grid = 'karras': must be one of uniform, rho, log_snr"),
    ({"num": 0}, "num = 0: must be at least 1"),
    ({"num_steps": 0}, "num_steps = 0"),
    ({"batch_size": 0}, "batch_size = 0"),
    ({"labels": np.zeros(3, np.int32)}, r"len\(labels\) = 3: must be num = 4"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input(options: dict[str, Any], message: str) -> None:
    field = gaussian_field(schedules.Linear(), targets.Velocity())
    with pytest.raises(ValueError, match=message):
        sample(field, jax.random.key(0), **{"num": 4, **options})
