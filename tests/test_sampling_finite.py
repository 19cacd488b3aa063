"""Samplers on the exact conditional field of data that is not Gaussian: finite sets and a mixture."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.exact import Distribution, FiniteSet, Marginal, Mixture
from geonoise_jax.fields import ExactField
from geonoise_jax.process import schedules, targets
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import Schedule
from geonoise_jax.process.targets import Target
from geonoise_jax.process.times import Uniform
from geonoise_jax.sampling import SAMPLERS, sample

WEIGHTS = np.array([0.1, 0.2, 0.3, 0.4])
NUM = 1024
STEPS = 150
TIMED = [name for name, each in SAMPLERS.items() if each.timed]
SYSTEMS: dict[str, tuple[Schedule, Target]] = {
    "ddpm": (schedules.VPDiscrete(), targets.Noise()),
    "iddpm": (schedules.Cosine(), targets.Noise()),
    "score": (schedules.VE(), targets.Score()),
    "flow_matching": (schedules.Linear(), targets.Velocity()),
    "stochastic_interpolant": (schedules.Trigonometric(), targets.Velocity()),
    "v_prediction": (schedules.VPLinear(), targets.VPrediction()),
    "x_prediction": (schedules.Linear(), targets.Signal()),
    "edm": (schedules.EDMScaled(), targets.EDMNetwork()),
    "uedm": (schedules.UEDM(), targets.UEDM()),
    "eqm": (schedules.Linear(), targets.Equilibrium()),
}


def field(law: Distribution, schedule: Schedule, target: Target) -> ExactField:
    marginal = Marginal(law, Process(schedule, target), Uniform(schedule.t_min, schedule.t_max))
    return ExactField(marginal, blind=False)


@functools.cache
def points(dim: int) -> np.ndarray:
    """Four points about as far from each other as their noise is wide, centred for a start from pure noise."""
    x = np.random.default_rng(dim).standard_normal((4, dim))
    return (x - WEIGHTS @ x).astype(np.float32)


def check_finite_set(name: str, schedule: Schedule, target: Target, dim: int, **options: Any) -> None:
    """Each sample is at a datum, up to the noise left at t_min, and the data come as often as they weigh."""
    exact = field(FiniteSet(points(dim), WEIGHTS), schedule, target)
    if SAMPLERS[name].gridded:
        options |= {"num_steps": STEPS, "grid": "log_snr"}
    samples = sample(exact, jax.random.key(0), NUM, name, **options)
    distance = np.linalg.norm(samples[:, None] - points(dim), axis=-1)
    a, b = (float(scale) for scale in schedule.scales(jnp.asarray(schedule.t_min)))
    noise = b / a * math.sqrt(dim)
    assert np.quantile(distance.min(axis=1), 0.95) < 2.5 * noise
    share = np.bincount(distance.argmin(axis=1), minlength=4) / NUM
    np.testing.assert_array_less(np.abs(share - WEIGHTS), 4.0 * np.sqrt(WEIGHTS * (1 - WEIGHTS) / NUM) + 0.02)


@pytest.mark.parametrize("name", [each for each in TIMED if each != "kvaerno5"])
def test_every_sampler_in_eight_dimensions(name: str) -> None:
    check_finite_set(name, *SYSTEMS["flow_matching"], 8)


@pytest.mark.parametrize(("name", "system", "dim"), [("dpmpp_2m", "edm", 2), ("ancestral", "v_prediction", 64)])
def test_other_dimensions(name: str, system: str, dim: int) -> None:
    check_finite_set(name, *SYSTEMS[system], dim)


# The implicit solver factors a Jacobian of the dimensions of the data at every step.
STUDY = [each for each in itertools.product(TIMED, SYSTEMS, (2, 8, 64)) if each[0] != "kvaerno5" or each[2] < 64]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "system", "dim"), STUDY)
def test_every_sampler_and_system(name: str, system: str, dim: int) -> None:
    check_finite_set(name, *SYSTEMS[system], dim)


@pytest.mark.parametrize("name", ["heun", "ancestral"])
def test_a_mixture(name: str) -> None:
    """Mean and covariance of the mixture, and the weights of its components."""
    means, var = np.array([[2.0, 0.0], [-1.0, 1.0]], np.float32), np.array([[0.1, 0.3], [0.2, 0.05]], np.float32)
    weights, num = np.array([1.0, 2.0]) / 3.0, 4096
    exact = field(Mixture(means, var, weights), *SYSTEMS["v_prediction"])
    samples = sample(exact, jax.random.key(1), num, name, 300, grid="log_snr")
    centre = weights @ means
    covariance = np.diag(weights @ var) + (weights[:, None] * (means - centre)).T @ (means - centre)
    np.testing.assert_allclose(samples.mean(axis=0), centre, atol=4.0 * math.sqrt(covariance.max() / num) + 0.02)
    np.testing.assert_allclose(np.cov(samples.T), covariance, atol=0.1)
    near_first = np.linalg.norm(samples - means[0], axis=1) < np.linalg.norm(samples - means[1], axis=1)
    assert near_first.mean() == pytest.approx(1.0 / 3.0, abs=0.03)
