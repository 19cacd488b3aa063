"""Errors along a sampler: radial factors, spectral norms and the bound of Sun et al."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.exact import FiniteSet, Gaussian, Marginal
from geonoise_jax.fields import ExactField
from geonoise_jax.process import grids
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import VE, Linear, Schedule, VPLinear
from geonoise_jax.process.targets import Equilibrium, Noise, Signal, Target, Velocity, VPrediction
from geonoise_jax.process.times import Uniform
from geonoise_jax.stability import (
    chi_moment,
    drift_factor,
    error_bound,
    measured_radial_factor,
    radial_factor,
    radial_rate,
    spectral_norm,
)

START, STOP = 0.3, 1e-4
# What separates the parameterizations: factors from t = 0.3 to 1e-4 of the drift alone, and of the blind field.
FACTORS: list[tuple[Schedule, Target, float, float]] = [
    (VPLinear(t_min=STOP), Noise(), 1.5884, 1.5884),
    (VPLinear(t_min=STOP), VPrediction(), 1.0, 1.5884),
    (Linear(t_min=STOP), Noise(), 1.0 / 0.7 * (1.0 - STOP), 1.0 / 0.7 * (1.0 - STOP)),
    (Linear(t_min=STOP), Velocity(), 1.0, 1.0),
    (VE(t_min=STOP), Noise(), 1.0, 1.0),
    (VE(t_min=STOP), Signal(), STOP / START, STOP / START),
    (Linear(t_min=STOP), Equilibrium(), 1.0, STOP / START),
]


def field(process: Process, law: FiniteSet | Gaussian, *, blind: bool = True) -> ExactField:
    time_law = Uniform(process.schedule.t_min, process.schedule.t_max)
    return ExactField(Marginal(law, process, time_law, accuracy=1e-4, adaptive=False), blind)


@pytest.mark.parametrize(("schedule", "target", "drift", "radial"), FACTORS, ids=lambda each: type(each).__name__)
def test_factors_by_quadrature(schedule: Schedule, target: Target, drift: float, radial: float) -> None:
    """The drift alone, exp(-int mu), tells neither v-prediction nor EqM from flow matching: the field's size does."""
    process = Process(schedule, target)
    assert float(drift_factor(process, START, STOP)) == pytest.approx(drift, rel=2e-4)
    assert float(radial_factor(process, START, STOP)) == pytest.approx(radial, rel=2e-4)


def test_the_velocity_of_vp_is_the_worst() -> None:
    """Its target's size b' grows as the radius shrinks: an error grows like b', by ten."""
    process = Process(VPLinear(t_min=STOP), Velocity())
    rates = [float(process.coeffs(t).db) for t in (STOP, START)]
    assert float(radial_factor(process, START, STOP)) == pytest.approx(rates[0] / rates[1], rel=1e-3)
    assert float(radial_factor(process, START, STOP)) == pytest.approx(10.36, rel=1e-3)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "which",
    [0, 6, *(pytest.param(each, marks=pytest.mark.slow) for each in (1, 3))],
    ids=["VP eps", "EqM", "VP v", "FM v"],
)
def test_the_sampler_has_the_factor_of_the_local_model(which: int) -> None:
    """Beside one datum, for an error that leaves the radius positive; 1.62, 1.64, 1.00 and 3.3e-4 at D = 128."""
    schedule, target, _, _ = FACTORS[which]
    process, dim = Process(schedule, target), 128
    x = jnp.zeros((1, dim)).at[0, 0].set(1.0)
    eps = jnp.zeros((1, dim)).at[0, 1].set(1.003 * chi_moment(dim - 1, 1.0))
    times = grids.log_snr(dataclasses.replace(schedule, t_max=START), 60)
    found = measured_radial_factor(field(process, FiniteSet(x)), x, eps, times, size=3e-4)
    expected = {0: 1.62, 1: 1.64, 3: 1.0, 6: 3.33e-4}[which]
    assert float(found.factor[0]) == pytest.approx(expected, rel=0.03)
    assert float(found.factor[0]) == pytest.approx(float(radial_factor(process, START, STOP)), rel=0.05)


def test_rates_of_the_local_model() -> None:
    t = jnp.array([0.1, 0.5])
    a, b, da, db = VPLinear().coeffs(t)
    np.testing.assert_allclose(radial_rate(Process(VPLinear(), VPrediction()), t), da / a, rtol=1e-4)
    np.testing.assert_allclose(radial_rate(Process(VPLinear(), Signal()), t), db / b, rtol=1e-4)


@pytest.mark.usefixtures("x64")
def test_the_spectral_norm_of_a_gaussian() -> None:
    """Its conditional field is linear: d / b + (c - d a / b) a S / (a^2 S + b^2) along each axis."""
    var = np.array([0.1, 1.0, 4.0])
    process = Process(Linear(), Velocity())
    law = field(process, Gaussian(np.zeros(3), var), blind=False)
    for t in (0.1, 0.9):
        k = process.coeffs(t)
        axes = k.d / k.b + (k.c - k.d * k.a / k.b) * k.a * var / (k.a**2 * var + k.b**2)
        found = spectral_norm(law, jnp.ones((2, 3)), t, jax.random.key(0), iterations=60)
        np.testing.assert_allclose(found, np.abs(axes).max(), rtol=1e-4)


@pytest.mark.usefixtures("x64")
def test_the_bound_is_one_and_is_made_of_its_parts() -> None:
    process = Process(VPLinear(t_min=0.01), Noise())
    law = Gaussian(np.zeros(3), np.array([0.01, 1.0, 4.0]))
    blind, known = field(process, law), field(process, law, blind=False)
    times = grids.log_snr(process.schedule, 8)
    u = process.start(jax.random.key(0), (4, 3))
    found = error_bound(blind, known, u, times, jax.random.key(1), iterations=30, points=2)
    assert (found.bound >= found.realised).all()
    assert (found.realised > 0.0).all()
    kappa, omega = process.step(times[1:], times[:-1])
    total = np.zeros(4)
    for i in range(8):
        growth = math.prod([np.abs(kappa[j]) + np.abs(omega[j]) * found.lipschitz[j] for j in range(i + 1, 8)])
        np.testing.assert_allclose(found.amplification[i], growth, rtol=1e-10)
        total += np.asarray(growth * found.perturbation[i])
    np.testing.assert_allclose(found.bound, total, rtol=1e-10)


def test_numbers_out_of_range_are_refused() -> None:
    process = Process(Linear(), Velocity())
    with pytest.raises(ValueError, match=r"stop = 0.5: must be a number in \[0.001, 0.3\)"):
        radial_factor(process, 0.3, 0.5)
    law = field(process, FiniteSet(np.eye(2)))
    with pytest.raises(ValueError, match="iterations = 0: must be an integer >= 1"):
        spectral_norm(law, jnp.ones((1, 2)), 0.5, jax.random.key(0), iterations=0)
    with pytest.raises(ValueError, match="size = 1.0: must be a number"):
        measured_radial_factor(law, jnp.ones((1, 2)), jnp.ones((1, 2)), jnp.array([0.5, 0.1]), size=1.0)
