"""Time laws (density, quantile, sampling), loss weights and sampling grids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.process import grids, schedules, times, weights
from geonoise_jax.process.times import Discrete, LogitNormal, LogNormal, LogUniform, TimeLaw, Uniform

CONTINUOUS: list[TimeLaw] = [
    Uniform(0.001, 0.999),
    Uniform(0.002, 80.0),
    LogUniform(0.002, 80.0),
    LogNormal(-1.2, 1.2, 0.002, 80.0),
    LogNormal(-1.2, 1.2, 0.0, 80.0),
    LogNormal(3.0, 0.4, 0.1, 5.0),
    LogitNormal(),
    LogitNormal(0.8, 1.0, 0.001, 0.999),
    LogitNormal(-1.0, 2.0, 0.3, 1.0),
]
ALL = [*CONTINUOUS, Discrete(1, 1000), Discrete(0, 3)]


def gauss_legendre(low: float, high: float, panels: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of composite 8-point Gauss-Legendre on panels that are geometric towards both ends."""
    x, w = np.polynomial.legendre.leggauss(8)
    graded = np.geomspace(1e-12, 0.5, panels) * (high - low)
    edges = np.unique(np.concatenate([[low, high], low + graded, high - graded]))
    half = 0.5 * np.diff(edges)
    middle = 0.5 * (edges[1:] + edges[:-1])
    return (middle[:, None] + half[:, None] * x).ravel(), (half[:, None] * w).ravel()


def test_every_law_is_covered() -> None:
    assert {type(law) for law in ALL} == set(times.TIME_LAWS)


@pytest.mark.parametrize("law", CONTINUOUS, ids=str)
def test_quantile_inverts_the_integral_of_the_density(law: TimeLaw, x64: None) -> None:
    for p in (1e-3, 0.2, 0.5, 0.9, 0.9999, 1.0):
        nodes, node_weights = gauss_legendre(law.lo, float(law.quantile(p)))
        np.testing.assert_allclose(np.sum(node_weights * law.density(nodes)), p, rtol=1e-8)


@pytest.mark.parametrize("law", ALL, ids=str)
def test_density_vanishes_outside(law: TimeLaw) -> None:
    np.testing.assert_array_equal(law.density(jnp.array([law.lo - 1.0, law.hi + 1.0])), 0.0)


@pytest.mark.parametrize("law", ALL, ids=str)
def test_quantiles_stay_inside_and_increase_in_float32(law: TimeLaw) -> None:
    t = law.quantile(jnp.linspace(0.0, 1.0, 1001))
    assert t.dtype == jnp.float32
    assert np.all(np.diff(t) >= 0)
    assert t.min() >= np.float32(law.lo)
    assert t.max() <= np.float32(law.hi)


@pytest.mark.parametrize("law", CONTINUOUS, ids=str)
def test_float32_quantiles_agree_with_float64(law: TimeLaw) -> None:
    p = jnp.linspace(0.0005, 0.9995, 1000)
    single = np.asarray(law.quantile(p), np.float64)
    with jax.enable_x64(True):
        double = law.quantile(jnp.asarray(np.asarray(p), jnp.float64))
    np.testing.assert_allclose(single, double, rtol=2e-5)


@pytest.mark.parametrize("law", ALL, ids=str)
@pytest.mark.parametrize("stratified", [False, True])
def test_samples_follow_the_law(law: TimeLaw, stratified: bool) -> None:
    num = 4096
    t = np.sort(law.sample(jax.random.key(1), num, stratified=stratified))
    want = np.asarray(law.quantile((jnp.arange(num) + 0.5) / num))
    spread = np.asarray(law.quantile(jnp.array(0.9))) - np.asarray(law.quantile(jnp.array(0.1)))
    central = slice(num // 50, -num // 50)
    tolerance = 0.12 if not stratified else 0.01
    if isinstance(law, Discrete):
        tolerance += 1.0 / spread
    np.testing.assert_allclose(t[central], want[central], atol=tolerance * spread)


def test_stratified_draws_one_time_per_slice() -> None:
    t = Uniform(0.0, 1.0).sample(jax.random.key(0), 64, stratified=True)
    np.testing.assert_array_equal(np.floor(np.asarray(t) * 64), np.arange(64))


def test_discrete_law_is_a_probability_on_integers() -> None:
    law = Discrete(1, 1000)
    np.testing.assert_allclose(np.sum(law.density(np.arange(1, 1001))), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(law.density(jnp.array([1.5, 0.0, 1001.0])), 0.0)
    counts = np.bincount(np.asarray(Discrete(0, 3).sample(jax.random.key(0), 4000)).astype(int), minlength=4)
    np.testing.assert_allclose(counts, 1000, atol=120)


BAD_LAWS: list[tuple[Callable[[], Any], str]] = [
    (lambda: Uniform(1.0, 1.0), "Uniform.lo = 1.0: must be smaller"),
    (lambda: LogUniform(0.0, 1.0), "LogUniform.lo = 0.0"),
    (lambda: LogNormal(std=0.0), "LogNormal.std = 0.0"),
    (lambda: LogNormal(lo=-0.1), "LogNormal.lo = -0.1"),
    (lambda: LogNormal(-60.0, 0.1, 1.0, 2.0), "no probability is left on"),
    (lambda: LogitNormal(hi=1.5), "LogitNormal.hi = 1.5"),
    (lambda: Discrete(1, 2.5), "Discrete.hi = 2.5: must be an integer"),  # type: ignore[arg-type]
    (lambda: Uniform(0.0, 1.0).sample(jax.random.key(0), 0), "num = 0: must be an integer >= 1"),
]


@pytest.mark.parametrize(("make", "message"), BAD_LAWS, ids=[message for _, message in BAD_LAWS])
def test_bad_laws(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


SCHEDULES = [pytest.param(schedule(), id=schedule.__name__) for schedule in schedules.SCHEDULES]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("grid", grids.GRIDS)
@pytest.mark.parametrize("num_steps", [1, 37])
def test_grids_decrease_between_the_exact_ends(schedule: schedules.Schedule, grid: str, num_steps: int) -> None:
    t = np.asarray(grids.GRIDS[grid](schedule, num_steps))
    assert t.shape == (num_steps + 1,)
    assert t[0] == np.float32(schedule.t_max)
    assert t[-1] == np.float32(schedule.t_min)
    assert np.all(np.diff(t) < 0)


def test_grid_spacing(x64: None) -> None:
    schedule = schedules.VE()
    np.testing.assert_allclose(np.diff(grids.rho(schedule, 18) ** (1 / 7), n=2), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.diff(np.log(grids.log_snr(schedule, 18)), n=2), 0.0, atol=1e-12)
    # Karras et al. (2022), equation 5, written out.
    i = np.arange(18)
    karras = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(grids.rho(schedule, 17), karras, rtol=1e-12)


def test_bad_grids() -> None:
    with pytest.raises(ValueError, match="num_steps = 0"):
        grids.uniform(schedules.Linear(), 0)
    with pytest.raises(ValueError, match="exponent = 0"):
        grids.rho(schedules.Linear(), 4, exponent=0.0)
    with pytest.raises(ValueError, match=r"t_max = 1.0: the log-SNR grid needs a > 0"):
        grids.log_snr(schedules.Linear(t_max=1.0), 4)


def test_loss_weights(x64: None) -> None:
    t = jnp.array([0.01, 0.5, 3.0])
    schedule = schedules.VE()
    np.testing.assert_array_equal(weights.Unit(schedule)(t), 1.0)
    np.testing.assert_allclose(weights.NoisePower(schedule)(t), t**2, rtol=1e-14)
    np.testing.assert_allclose(weights.EDM(schedule)(t), (t**2 + 0.25) / (0.5 * t) ** 2, rtol=1e-13)
    assert len(weights.LOSS_WEIGHTS) == 3
    with pytest.raises(ValueError, match="EDM.sigma_data = 0"):
        weights.EDM(schedule, 0.0)
