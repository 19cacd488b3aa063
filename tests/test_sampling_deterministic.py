"""Deterministic samplers on the exact Gaussian field: order of convergence, terminal law, and identities."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.exact import Gaussian, Marginal
from geonoise_jax.fields import ExactField
from geonoise_jax.process import grids, schedules, targets
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import SCHEDULES, Schedule
from geonoise_jax.process.targets import TARGETS, Target
from geonoise_jax.process.times import Uniform
from geonoise_jax.sampling import ddim, dpmpp_2m, edm_churn, euler, heun, trajectory
from tests.sampling_oracles import MEAN, VAR, GaussianField, exact_flow, gaussian

Run = Callable[..., Any]
KEYS = jax.random.split(jax.random.key(9), 16)
# Jitted once each, so that one process and one number of steps is compiled once for all tests.
RUNS: dict[str, Run] = {
    "euler": jax.jit(euler),
    "ddim": jax.jit(ddim),
    "heun": jax.jit(heun),
    "dpmpp_2m": jax.jit(dpmpp_2m),
    "dpmpp_2m without a lower last step": jax.jit(functools.partial(dpmpp_2m, lower_order_final=False)),
    "edm_churn without churn": jax.jit(lambda field, u, times: edm_churn(field, u, times, KEYS, s_churn=0.0)),
}
ORDERS = dict(zip(RUNS, (1, 1, 2, 2, 2, 2), strict=True))
# These see of a schedule sigma = b / a alone, once u is divided by a.
IN_SIGMA = ("ddim", "dpmpp_2m", "edm_churn without churn")
STEPS = 12
PAIRS = [
    pytest.param(schedule(), target(), id=f"{schedule.__name__}-{target.__name__}")
    for schedule, target in itertools.product(SCHEDULES, TARGETS)
]
ALL_SCHEDULES = [pytest.param(schedule(), id=schedule.__name__) for schedule in SCHEDULES]


def start(schedule: Schedule) -> jax.Array:
    return Process(schedule, targets.Velocity()).start(jax.random.key(0), (16, 3))


@pytest.mark.parametrize("schedule", ALL_SCHEDULES)
def test_convergence_order(schedule: Schedule, x64: None) -> None:
    """Halving the step divides the error by 2^order.

    That the target is of no account, nor for all but Euler's and Heun's methods the schedule, is tested below.
    """
    field, u = gaussian(schedule, targets.Velocity()), start(schedule)
    want = exact_flow(schedule, u, schedule.t_min, schedule.t_max)
    for name in ORDERS if isinstance(schedule, schedules.VPLinear) else ("euler", "heun"):
        ends = [RUNS[name](field, u, grids.log_snr(schedule, num_steps)) for num_steps in (200, 400)]
        coarse, fine = (np.abs(np.asarray(end) - want).max() for end in ends)
        assert coarse < 0.2, name
        assert math.log2(coarse / fine) == pytest.approx(ORDERS[name], abs=0.1), name


@pytest.mark.parametrize(("schedule", "target"), PAIRS)
def test_flow_of_every_process_in_float32(schedule: Schedule, target: Target) -> None:
    """Start and end of Heun's method are joined by the exact affine map, hence so are all means and covariances."""
    u = start(schedule)
    end = RUNS["heun"](gaussian(schedule, target), u, grids.log_snr(schedule, 64))
    want = exact_flow(schedule, u, schedule.t_min, schedule.t_max)
    np.testing.assert_allclose(end, want, atol=6e-3 * np.abs(want).max())


def test_the_target_does_not_matter(x64: None) -> None:
    """All targets of one schedule stand for the same x and eps, so every sampler takes the same path."""
    schedule = schedules.VPLinear()
    u, times = start(schedule), grids.log_snr(schedule, STEPS)
    for name, run in RUNS.items():
        others = TARGETS if name == "ddim" else (targets.EDMNetwork,)
        want = run(gaussian(schedule, targets.Velocity()), u, times)
        for target in others:
            np.testing.assert_allclose(run(gaussian(schedule, target()), u, times), want, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("schedule", [schedules.Linear(), schedules.Cosine(), schedules.EDMScaled()], ids=repr)
def test_the_schedule_does_not_matter_in_sigma(schedule: Schedule, x64: None) -> None:
    times, plain = grids.log_snr(schedule, STEPS), gaussian(schedules.VE(), targets.Velocity())
    sigma, scale, u = jnp.exp(schedule.eta(times)), schedule.scales(times)[0], start(schedule)
    for name in IN_SIGMA:
        end = RUNS[name](gaussian(schedule, targets.Velocity()), u, times)
        np.testing.assert_allclose(end / scale[-1], RUNS[name](plain, u / scale[0], sigma), rtol=1e-6)


def test_ddim_is_flow_matching_euler_on_the_linear_schedule(x64: None) -> None:
    """The whole path, with the noise target and with the velocity target."""
    schedule = schedules.Linear()
    u, times = start(schedule), grids.uniform(schedule, 20)
    want = trajectory("euler", gaussian(schedule, targets.Velocity()), u, times)
    for target in (targets.Noise(), targets.Velocity()):
        np.testing.assert_allclose(trajectory("ddim", gaussian(schedule, target), u, times), want, rtol=1e-10)


def test_edm_heun_is_heun_where_time_is_sigma(x64: None) -> None:
    schedule = schedules.VE()
    field, times, u = gaussian(schedule, targets.Velocity()), grids.rho(schedule, STEPS), start(schedule)
    want = RUNS["heun"](field, u, times)
    np.testing.assert_allclose(RUNS["edm_churn without churn"](field, u, times), want, rtol=1e-11)


@pytest.mark.parametrize("name", [*IN_SIGMA, "heun"])
def test_ends_without_signal_and_without_noise(name: str) -> None:
    """From a = 0 to b = 0 the log-SNR is infinite at both ends; the velocity target allows both."""
    schedule = schedules.Linear(t_min=0.0, t_max=1.0)
    times = jnp.concatenate([jnp.ones(1), grids.log_snr(schedules.Linear(), 200), jnp.zeros(1)])
    u = start(schedule)
    end = RUNS[name](AtTheEnds(gaussian(schedule, targets.Velocity())), u, times)
    np.testing.assert_allclose(end, exact_flow(schedule, u, 0.0, 1.0), atol=0.05)


@dataclasses.dataclass(frozen=True)
class AtTheEnds:
    """A Gaussian's velocity with its limit where b = 0, which the formula divides by."""

    field: GaussianField

    @property
    def process(self) -> Process:
        return self.field.process

    def __call__(self, u: jax.Array, t: jax.Array) -> jax.Array:
        return self.field(u, jnp.maximum(t, 1e-6))


jax.tree_util.register_dataclass(AtTheEnds, ["field"], [])


def test_trajectory_ends_where_the_sampler_does() -> None:
    schedule = schedules.Linear()
    field, u, times = gaussian(schedule, targets.Velocity()), start(schedule), grids.uniform(schedule, STEPS)
    for name in ("euler", "heun", "ddim"):
        path = trajectory(name, field, u, times)
        assert path.shape == (STEPS + 1, 16, 3)
        np.testing.assert_array_equal(path[0], u)
        np.testing.assert_allclose(path[-1], RUNS[name](field, u, times), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="solver = 'rk4': must be one of euler, heun, ddim"):
        trajectory("rk4", field, u, times)


def test_the_oracle_is_the_exact_field(x64: None) -> None:
    for schedule, target in ((schedules.VPLinear(), targets.Noise()), (schedules.EDMScaled(), targets.EDMNetwork())):
        oracle = gaussian(schedule, target)
        law = Uniform(schedule.t_min, schedule.t_max)
        exact = ExactField(Marginal(Gaussian(MEAN, VAR), oracle.process, law), blind=False)
        u, t = start(schedule)[:4], jnp.linspace(schedule.t_min, schedule.t_max, 4)
        np.testing.assert_allclose(oracle(u, t), exact(u, t), rtol=1e-9)
