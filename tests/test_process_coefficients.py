"""Coefficients of every schedule and target: reference values, identities, derivatives, float32 accuracy."""

from __future__ import annotations

import itertools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.exact import reference
from geonoise_jax.process import schedules, targets
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import SCHEDULES, Schedule
from geonoise_jax.process.targets import TARGETS, Target

CASES = json.loads(reference.PATH.read_text())["cases"]

PAIRS = [
    pytest.param(schedule(), target(), id=f"{schedule.__name__}-{target.__name__}")
    for schedule, target in itertools.product(SCHEDULES, TARGETS)
]
ALL_SCHEDULES = [pytest.param(schedule(), id=schedule.__name__) for schedule in SCHEDULES]


def probe_times(schedule: Schedule, num: int = 41) -> np.ndarray:
    """Times over the whole range, dense near both ends."""
    low, high = schedule.t_min, schedule.t_max
    edge = np.geomspace(1e-6, 0.5, num) * (high - low)
    return np.unique(np.concatenate([[low, high], low + edge, high - edge])).clip(low, high)


def named_coeffs(process: Process, t: Any) -> dict[str, jax.Array]:
    k = process.coeffs(t)
    mu, nu = process.velocity_coeffs(t)
    extra = {
        "mu": mu,
        "nu": nu,
        "lam": process.gain(t),
        "c_scale": process.drift_scale(t),
        "snr": jnp.exp(process.schedule.log_snr(t)),
    }
    return k._asdict() | extra


def relative_error(got: Any, want: Any) -> float:
    """Relative error; absolute where the wanted value is zero."""
    got, want = float(got), float(want)
    return abs(got - want) / (abs(want) or 1.0)


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
@pytest.mark.parametrize("precision", [64, 32])
def test_reference_coefficients(case: dict[str, Any], precision: int) -> None:
    schedule, target = reference.FAMILIES[case["family"]]
    tolerance = 1e-12 if precision == 64 else 1e-5
    with jax.enable_x64(precision == 64):
        process = Process(schedule(t_min=case["prior"]["tmin"], t_max=case["prior"]["tmax"]), target)
        got = named_coeffs(process, case["t_eval"])
        compared = set(got) & set(case["values"])
        assert len(compared) >= 7
        for name in compared:
            assert relative_error(got[name], case["values"][name]) <= tolerance, name


@pytest.mark.parametrize(("schedule", "target"), PAIRS)
def test_identities(schedule: Schedule, target: Target, x64: None) -> None:
    """lambda nu = b^2 d/dt log(b/a) and mu + nu c/a = a'/a, against autodiff of the schedule's own eta and log a."""
    process = Process(schedule, target)
    t = jnp.asarray(probe_times(schedule))
    ones = jnp.ones_like(t)
    b = schedule.scales(t)[1]
    mu, nu = process.velocity_coeffs(t)
    _, eta_rate = jax.jvp(schedule.eta, (t,), (ones,))
    _, log_a_rate = jax.jvp(lambda t: jnp.log(schedule.scales(t)[0]), (t,), (ones,))
    np.testing.assert_allclose(process.gain(t) * nu, b**2 * eta_rate, rtol=1e-11)
    scale = np.abs(mu) + np.abs(nu * process.drift_scale(t)) + np.abs(log_a_rate)
    np.testing.assert_array_less(np.abs(mu + nu * process.drift_scale(t) - log_a_rate), 1e-11 * scale + 1e-300)


@pytest.mark.parametrize(("schedule", "target"), PAIRS)
def test_solves(schedule: Schedule, target: Target, x64: None) -> None:
    """The pair (u, r) gives back x and eps, the velocity du/dt, and the observation at any other time."""
    process = Process(schedule, target)
    t = jnp.asarray(probe_times(schedule, num=9))
    shape = (t.size, 3, 2)
    x, eps = jax.random.normal(jax.random.key(0), (2, *shape), t.dtype)
    u, r = process.corrupt(x, eps, t), process.target(x, eps, t)
    k = process.coeffs(t)
    condition = np.max(np.hypot(k.a, k.b) * np.hypot(k.c, k.d) / np.abs(k.det))
    for got, want in zip(process.recover(u, r, t), (x, eps), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-13 * condition * np.max(np.abs(np.asarray(k))))
    velocity = k.da[:, None, None] * x + k.db[:, None, None] * eps
    np.testing.assert_allclose(
        process.velocity(u, r, t), velocity, rtol=1e-9, atol=1e-12 * condition * np.abs(velocity).max()
    )
    s = t[::-1]
    kappa, omega = (value[:, None, None] for value in process.step(s, t))
    u_s = process.corrupt(x, eps, s)
    np.testing.assert_allclose(kappa * u + omega * r, u_s, rtol=1e-9, atol=1e-12 * condition * np.abs(u_s).max())


@pytest.mark.parametrize("schedule", ALL_SCHEDULES)
def test_derivatives_are_autodiff_of_scales(schedule: Schedule, x64: None) -> None:
    t = jnp.asarray(probe_times(schedule))
    a, b, da, db = schedule.coeffs(t)
    want = jax.jvp(schedule.scales, (t,), (jnp.ones_like(t),))
    np.testing.assert_allclose([a, b], want[0], rtol=1e-14)
    np.testing.assert_allclose([da, db], want[1], rtol=1e-11)


@pytest.mark.parametrize("schedule", ALL_SCHEDULES)
def test_eta_increases_and_inverts(schedule: Schedule, x64: None) -> None:
    t = jnp.asarray(probe_times(schedule))
    eta = schedule.eta(t)
    assert np.all(np.diff(eta) > 0)
    a, b = schedule.scales(t)
    np.testing.assert_allclose(jnp.exp(eta), b / a, rtol=1e-12)
    for inverse in (schedule.t_of_eta(eta), Schedule.t_of_eta(schedule, eta)):
        np.testing.assert_allclose(inverse, t, rtol=1e-9)


@pytest.mark.parametrize(("schedule", "target"), PAIRS)
def test_float32_keeps_relative_accuracy(schedule: Schedule, target: Target) -> None:
    """Each coefficient at float32 times agrees with its float64 value at the same times, down to t_min."""
    process = Process(schedule, target)
    t = probe_times(schedule).astype(np.float32)
    single = {name: np.asarray(value, np.float64) for name, value in named_coeffs(process, jnp.asarray(t)).items()}
    with jax.enable_x64(True):
        double = {k: np.asarray(v) for k, v in named_coeffs(process, jnp.asarray(t, jnp.float64)).items()}
    for name, want in double.items():
        # mu is a difference that may vanish identically: it is measured against its terms.
        floor = np.abs(double["da"] * double["d"] / _det(double)) if name == "mu" else 0.0
        np.testing.assert_array_less(np.abs(single[name] - want), 1e-5 * np.maximum(np.abs(want), floor) + 1e-30)


def _det(k: dict[str, np.ndarray]) -> np.ndarray:
    return k["a"] * k["d"] - k["b"] * k["c"]


def test_vp_discrete_is_the_product_at_integers(x64: None) -> None:
    schedule = schedules.VPDiscrete()
    i = np.arange(1, 1001)
    alpha_bar = np.cumprod(1.0 - (1e-4 + (0.02 - 1e-4) * (i - 1) / 999))
    a, b, _, _ = schedule.coeffs(i)
    np.testing.assert_allclose(a, np.sqrt(alpha_bar), rtol=1e-13)
    np.testing.assert_allclose(b, np.sqrt(1.0 - alpha_bar), rtol=1e-11)


def test_vp_discrete_is_once_differentiable(x64: None) -> None:
    schedule = schedules.VPDiscrete()
    i = np.arange(1.0, 1000.0)
    below, above = (np.asarray(schedule.coeffs(i + side)) for side in (-1e-9, 1e-9))
    np.testing.assert_allclose(below, above, rtol=1e-6)


@pytest.mark.parametrize(
    ("decay", "at"), [("linear", {0.1: 0.1, 0.9: 0.9}), ("truncated", {0.1: 2.0, 0.2: 4.0, 0.9: 4.0})]
)
def test_equilibrium_decay(decay: str, at: dict[float, float]) -> None:
    target = targets.Equilibrium(decay=decay)
    for t, want in at.items():
        np.testing.assert_allclose(target.decay_factor(t), want, rtol=1e-6)
    doubled = targets.Equilibrium(decay=decay, multiplier=2.0, plateau=0.4)
    np.testing.assert_allclose(doubled.decay_factor(0.1), 0.2 if decay == "linear" else 0.5, rtol=1e-6)


def test_known_forms(x64: None) -> None:
    """Rows of the paper's table and of Sun et al. that have a closed form of their own."""
    t = jnp.linspace(0.1, 0.9, 9)
    fm = Process(schedules.Linear(), targets.Velocity())
    np.testing.assert_allclose(fm.gain(t), t / (1 - t), rtol=1e-14)
    mu, nu = fm.velocity_coeffs(t)
    np.testing.assert_array_equal(mu, 0.0)
    np.testing.assert_array_equal(nu, 1.0)
    edm = Process(schedules.EDMScaled(sigma_data=0.5), targets.EDMNetwork(sigma_data=0.5))
    np.testing.assert_allclose(edm.coeffs(t).det, -2.0, rtol=1e-13)
    np.testing.assert_allclose(edm.velocity_coeffs(t)[1], -0.5 / (t**2 + 0.25), rtol=1e-13)
    uedm = Process(schedules.UEDM(), targets.UEDM())
    np.testing.assert_allclose(uedm.coeffs(t).det, -t / jnp.sqrt(1 + t**2), rtol=1e-13)


def test_cosine_betas_are_the_continuous_cosine_schedule_at_the_integers(x64: None) -> None:
    """All but the last, which is cut at 0.999."""
    discrete, continuous = schedules.VPDiscrete(betas="cosine"), schedules.Cosine(t_max=1.0)
    t = jnp.arange(1.0, 1000.0)
    for one, other in zip(discrete.scales(t), continuous.scales(t / 1000.0), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    np.testing.assert_allclose(discrete.scales(jnp.array(1000.0))[0] / discrete.scales(jnp.array(999.0))[0], 0.001**0.5)
    assert np.diff(discrete.eta(jnp.linspace(1.0, 1000.0, 20_001))).min() > 0.0
