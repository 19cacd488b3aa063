"""Drift perturbation, the local model near a datum, and errors too small to subtract: tables of closed forms."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from geonoise_jax.exact import FiniteSet, Marginal
from geonoise_jax.fields import ExactField
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import VE, EDMScaled, Linear, VPLinear
from geonoise_jax.process.targets import EDMNetwork, Equilibrium, Noise, Signal, Velocity, VPrediction
from geonoise_jax.process.times import LogUniform, Uniform
from geonoise_jax.stability import (
    affine_target,
    along_path,
    at_distance,
    blind_error_rms,
    chi_moment,
    distance,
    in_units,
    level_bias,
    log_estimation_error,
    log_probabilities,
    noise_exponent,
    noise_width,
    of_steps,
    perturbation,
    posterior_width,
    rms,
    transport_share,
)

PROCESSES = {
    "VP eps": (VPLinear, Noise()),
    "VP v": (VPLinear, VPrediction()),
    "VP vdot": (VPLinear, Velocity()),
    "VP x": (VPLinear, Signal()),
    "VE eps": (VE, Noise()),
    "VE x": (VE, Signal()),
    "FM v": (Linear, Velocity()),
    "FM eps": (Linear, Noise()),
    "EqM": (Linear, Equilibrium()),
}
SIGNALS = ("VP x", "VE x", "EqM")
POINTS = 16


def process(name: str, t_min: float = 1e-9) -> Process:
    schedule, target = PROCESSES[name]
    return Process(schedule(t_min=t_min), target)


def uniform(process: Process) -> Uniform:
    return Uniform(process.schedule.t_min, process.schedule.t_max)


def points(dim: int, scale: float = 1.0) -> np.ndarray:
    x = np.random.default_rng(dim).standard_normal((POINTS, dim))
    return scale * x / np.linalg.norm(x, axis=1, keepdims=True)


def draws(dim: int, num: int) -> tuple[jax.Array, jax.Array]:
    generator = np.random.default_rng(1)
    x = points(dim)[generator.integers(0, POINTS, num)]
    return jnp.asarray(x), jnp.asarray(generator.standard_normal((num, dim)))


def fields(name: str, dim: int, t_min: float = 1e-9) -> tuple[ExactField, ExactField]:
    """The blind and the conditional field of points on a sphere."""
    made = process(name, t_min)
    marginal = Marginal(FiniteSet(points(dim)), made, uniform(made))
    return ExactField(marginal), ExactField(marginal, blind=False)


@pytest.mark.parametrize(
    ("dim", "first", "second"),
    [
        (2, 0.7979, None),
        (3, 0.7555, 1.044),
        (4, 0.7392, 0.9265),
        (8, 0.7204, 0.7981),
        (32, 0.7100, 0.7272),
        (128, 0.7078, 0.7120),
        (3072, 0.7071, 0.7073),
    ],
)
def test_the_rms_gap_of_the_blind_noise(dim: int, first: float, second: float | None) -> None:
    """To four digits, of a prior that is flat in b and one that is flat in b^2."""
    assert blind_error_rms(dim, 1.0) == pytest.approx(first, abs=5e-5)
    if second is None:
        with pytest.raises(ValueError, match=r"degrees = 0.0: must be a number in \(0, inf\)"):
            blind_error_rms(dim, 2.0)
    else:
        assert blind_error_rms(dim, 2.0) == pytest.approx(second, abs=6e-5 if second < 1 else 6e-4)


@pytest.mark.parametrize("power", [-2.0, -1.0, 1.0, 3.0])
def test_moments_of_chi(power: float) -> None:
    density = lambda s: s**4 * math.exp(-0.5 * s * s)  # noqa: E731
    moment = integrate.quad(lambda s: s**power * density(s), 0, 40)[0] / integrate.quad(density, 0, 40)[0]
    assert chi_moment(5, power) == pytest.approx(moment, rel=1e-9)
    assert chi_moment(2, -2.0) == math.inf


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "exponent", "dim"),
    [
        ("VE eps", 1, 32),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in (("VE eps", 1, 2), ("VP eps", 2, 8))),
    ],
)
def test_the_exact_field_has_that_gap(name: str, exponent: int, dim: int) -> None:
    """The exact blind noise near a datum is the constant E[s]; its Jensen gap averages to zero where kappa = 1."""
    blind, known = fields(name, dim)
    x, eps = draws(dim, 16)
    t = jnp.full(16, 1e-6)
    made = blind.process
    u = made.corrupt(x, eps, t)
    assert float(noise_exponent(made.schedule, uniform(made), 1e-6)) == pytest.approx(exponent, abs=1e-3)
    error = perturbation(blind, known, u, t).estimation
    length = np.linalg.norm(eps, axis=1)
    expected = np.abs(chi_moment(dim - exponent, 1.0) - length)
    # In the plane the other points still count, like t.
    np.testing.assert_allclose(error, expected, rtol=0, atol=3e-3 * (exponent == 2) + 1e-4)
    gap = blind.marginal.jensen_gap(u, t)  # type: ignore[attr-defined]
    np.testing.assert_allclose(gap, chi_moment(dim - exponent, 1.0) / length - 1.0, atol=2e-3)


@pytest.mark.parametrize("dim", [2, 8, 128])
def test_the_jensen_gap_averages_to_zero_for_a_flat_prior_of_b(dim: int) -> None:
    assert chi_moment(dim - 1, 1.0) * chi_moment(dim, -1.0) == pytest.approx(1.0, rel=1e-12)


def slope_of(name: str, dim: int) -> float:
    """Slope of log Delta v against log t at low noise, by the local model."""
    order, degrees = (0.5, dim - 2) if name.startswith("VP") else (1.0, dim - 1)
    return order * degrees - 1.0 if name in SIGNALS else order - 1.0


def tilted_moment(dim: int, direction: np.ndarray, x: np.ndarray) -> float:
    """E s of the law s^(D - 2) exp(-|s n + x|^2 / 2) of flow matching, whose data shrink as noise grows."""
    density = lambda s: s ** (dim - 2.0) * math.exp(-0.5 * float(np.sum((s * direction + x) ** 2)))  # noqa: E731
    return integrate.quad(lambda s: s * density(s), 0, 30)[0] / integrate.quad(density, 0, 30)[0]


def local_error(name: str, dim: int, x: np.ndarray, eps: np.ndarray) -> np.ndarray:
    """Error of the exact blind field on the trajectory, per unit b, by the local model."""
    if name.startswith("FM"):
        apart = eps - x
        length = np.linalg.norm(apart, axis=1)
        rows = zip(apart, length, x, strict=True)
        return np.abs(np.array([tilted_moment(dim, each / size, datum) for each, size, datum in rows]) - length)
    length = np.linalg.norm(eps, axis=1)
    if name == "VP vdot":  # the blind field reads its own size b' off u too, which doubles the error
        return np.abs((dim - 2) / length - length)
    return np.abs(chi_moment(dim - (2 if name.startswith("VP") else 1), 1.0) - length)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "dim"),
    [
        *((name, 8) for name in ("VP eps", "FM v", "EqM")),
        *(pytest.param(name, 8, marks=pytest.mark.slow) for name in PROCESSES if name not in ("VP eps", "FM v", "EqM")),
        *(pytest.param(name, 32, marks=pytest.mark.slow) for name in ("VE x", "FM v")),
    ],
)
def test_slopes_and_sizes_of_the_perturbation_on_the_trajectory(name: str, dim: int) -> None:
    """The exponent between t = 1e-4 and 1e-6; per unit b, the size of the local model: the slope is that of the clock.

    Noise and v-prediction of VP and the velocity of flow matching have one error per unit b, but for their priors.
    """
    blind, known = fields(name, dim)
    made, num = blind.process, 8
    x, eps = draws(dim, num)
    found = []
    for t in (1e-4, 1e-6):
        u = made.corrupt(x, eps, jnp.full(num, t))
        if name in SIGNALS:
            marginal: Marginal = blind.marginal  # type: ignore[assignment]
            found.append(in_units(made, jnp.exp(log_estimation_error(marginal, u, t)), t))
        else:
            found.append(perturbation(blind, known, u, t))
    slope = math.log(rms(found[0].per_time).value / rms(found[1].per_time).value) / math.log(100.0)
    assert slope == pytest.approx(slope_of(name, dim), abs=0.03)
    if name not in SIGNALS:
        np.testing.assert_allclose(
            found[1].per_noise, local_error(name, dim, np.asarray(x), np.asarray(eps)), rtol=2e-3, atol=3e-3
        )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dim", [2, 5])
def test_the_error_of_the_signal_is_a_power_of_the_distance(dim: int) -> None:
    """On all noise levels of VE, E[x | u] is the mean with weights r_k^-(D-1), of the plane Weiszfeld's (section 4)."""
    made = Process(VE(t_min=1e-10, t_max=1e6), Signal())
    marginal = Marginal(FiniteSet(points(dim)), made, uniform(made))
    x = points(dim)
    direction = np.random.default_rng(2).standard_normal(dim)
    logs, radii = [], np.array([1e-3, 1e-5])
    for radius in radii:
        u = at_distance(jnp.asarray(x[:1]), jnp.asarray(direction[None]), radius)
        r = np.linalg.norm(np.asarray(u) - x, axis=1)
        r[0] = radius
        weights = r ** -(dim - 1.0) / (r ** -(dim - 1.0)).sum()
        expected = math.log(np.linalg.norm((weights[1:, None] * (x[1:] - x[0])).sum(0)))
        # The conditional field is the datum itself there.
        logs.append(float(log_estimation_error(marginal, u, 0.1 * radius)[0]))
        assert logs[-1] == pytest.approx(expected, abs=1e-4)
    assert (logs[0] - logs[1]) / math.log(100.0) == pytest.approx(dim - 1, abs=2e-2)


@pytest.mark.usefixtures("x64")
def test_errors_far_below_rounding_agree_with_the_difference_above_it() -> None:
    """And go on by their exponent, past the smallest number of double precision."""
    blind, known = fields("EqM", 8)
    x, eps = draws(8, 4)
    u = blind.process.corrupt(x, eps, jnp.full(4, 0.1))
    direct = perturbation(blind, known, u, 0.1).estimation
    found = jnp.exp(log_estimation_error(blind.marginal, u, 0.1))  # type: ignore[arg-type]
    np.testing.assert_allclose(found, direct, rtol=1e-6)
    blind, _ = fields("VE x", 128)
    x, eps = draws(128, 4)
    logs = [
        log_estimation_error(blind.marginal, blind.process.corrupt(x, eps, jnp.full(4, t)), t)  # type: ignore[arg-type]
        for t in (1e-4, 1e-6)
    ]
    assert (logs[0] < math.log(1e-300)).all()
    np.testing.assert_allclose((logs[0] - logs[1]) / math.log(100.0), 127.0, rtol=1e-3)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["FM v", "VP eps"])
def test_at_a_fixed_distance_every_family_diverges(name: str) -> None:
    """Like 1 / t in the field per unit b, flow matching's velocity included: there the oracle is unbounded itself."""
    blind, known = fields(name, 8)
    x, eps = draws(8, 2)
    u = at_distance(x, eps, 0.1)
    np.testing.assert_allclose(distance(u, x), 0.1, rtol=1e-12)
    noise = [blind.process.schedule.coeffs(t).b for t in (1e-5, 1e-6)]
    found = [perturbation(blind, known, u, t).per_noise for t in (1e-5, 1e-6)]
    np.testing.assert_allclose(found[1] / found[0], noise[0] / noise[1], rtol=2e-2)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dim", [3, 32])
def test_the_transport_correction_keeps_its_share_of_the_field(dim: int) -> None:
    """Exactly -1 / m of the natural gradient near a datum: about D^(-1/2) long, and not zero."""
    blind, _ = fields("VE eps", dim)
    x, eps = draws(dim, 2)
    u = at_distance(x, eps, 1e-5)
    parts = blind.marginal.decompose(u)  # type: ignore[attr-defined]
    sizes = [np.linalg.norm(part, axis=1) for part in (parts.field, parts.natural, parts.transport)]
    np.testing.assert_allclose(sizes[2] / sizes[1], 1.0 / (dim - 1.0), rtol=5e-4)
    np.testing.assert_allclose(sizes[2] / sizes[0], transport_share(dim), rtol=5e-4)
    np.testing.assert_allclose(sizes[0], chi_moment(dim - 1, 1.0), rtol=1e-6)
    with pytest.raises(ValueError, match=r"dim - exponent = 1.0: must be a number in \(1, inf\)"):
        transport_share(2)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dim", [8, 128])
def test_the_posterior_keeps_its_relative_width(dim: int) -> None:
    blind, _ = fields("VE eps", dim)
    x, eps = draws(dim, 2)
    for t in (1e-3, 1e-6):
        width = noise_width(blind.marginal, blind.process.corrupt(x, eps, jnp.full(2, t)))  # type: ignore[arg-type]
        np.testing.assert_allclose(width.relative, posterior_width(dim), rtol=1e-4)
        np.testing.assert_allclose(width.mean / t, np.linalg.norm(eps, axis=1) * chi_moment(dim - 1, -1.0), rtol=1e-4)
    assert posterior_width(1000) == pytest.approx(1.0 / math.sqrt(2.0 * 999), rel=2e-3)
    assert posterior_width(3) == math.inf


def test_the_level_from_geometry_is_biased_below() -> None:
    lengths = np.linalg.norm(np.random.default_rng(0).standard_normal((200_000, 6)), axis=1)
    assert level_bias(6) == pytest.approx((lengths / math.sqrt(6)).mean(), abs=5e-3)
    assert level_bias(6) < 1.0


def test_exponents_of_priors() -> None:
    schedule = VE()
    assert float(noise_exponent(schedule, LogUniform(0.002, 80.0), 0.1)) == pytest.approx(0.0, abs=1e-5)
    assert float(noise_exponent(Linear(), Uniform(0.001, 0.999), 0.1)) == pytest.approx(1.0, abs=1e-5)


def test_targets_that_know_no_time() -> None:
    known = {name: affine_target(process(name, 1e-3)) for name in PROCESSES}
    assert known.pop("VE x") == known.pop("VP x") == (0.0, 1.0)
    assert known.pop("EqM") == pytest.approx((1.0, -1.0))
    assert set(known.values()) == {None}
    assert affine_target(Process(Linear(), Equilibrium("truncated"))) is None
    assert affine_target(Process(EDMScaled(), EDMNetwork())) is None


def test_along_a_path_every_unit_agrees() -> None:
    blind, known = fields("FM v", 3, 1e-2)
    times = jnp.array([0.5, 0.3, 0.1])
    x, eps = (each[:4].astype(jnp.float32) for each in draws(3, 4))
    path = jnp.stack([blind.process.corrupt(x, eps, jnp.full(4, t)) for t in times])
    along = along_path(blind, known, path, times)
    assert along.perturbation.estimation.shape == (3, 4)
    # Of flow matching nu = b' = 1, and a step is as long as it takes.
    np.testing.assert_allclose(along.perturbation.per_time, along.perturbation.estimation, rtol=1e-5)
    np.testing.assert_allclose(along.perturbation.per_noise, along.perturbation.estimation, rtol=1e-5)
    np.testing.assert_allclose(along.steps, 0.2 * along.perturbation.estimation[:-1], rtol=1e-5)
    with pytest.raises(ValueError, match=r"estimation.shape = \[3, 4\]: must be \[2, b\]"):
        of_steps(blind.process, along.perturbation.estimation, times)
    other = fields("EqM", 3, 1e-2)[0]
    with pytest.raises(ValueError, match="perturbation: the fields must not differ in process"):
        perturbation(blind, other, path[0], 0.5)


def test_a_step_does_not_depend_on_the_clock() -> None:
    """VP's noise and VE's noise at the same b / a: one step adds the same error to u / a."""
    scaled = []
    for schedule in (VPLinear(t_min=1e-4), VE(t_min=1e-2)):
        made = Process(schedule, Noise())
        times = schedule.t_of_eta(jnp.log(jnp.array([0.5, 0.4])))
        step = of_steps(made, jnp.ones((1, 1)), times)[0, 0]
        scaled.append(float(step / made.coeffs(times[1]).a))
    assert scaled[0] == pytest.approx(scaled[1], rel=1e-4)
    assert scaled[1] == pytest.approx(0.1, rel=1e-4)


@pytest.mark.usefixtures("x64")
def test_root_mean_squares_have_errors_and_no_underflow() -> None:
    values = np.abs(np.random.default_rng(0).standard_normal((500, 400)))
    found = rms(jnp.asarray(values * 1e-200))
    value, error = np.asarray(found.value), np.asarray(found.error)
    assert value.std() == pytest.approx(error.mean(), rel=0.15)
    assert value.mean() == pytest.approx(1e-200, rel=1e-2)
    assert [float(each) for each in rms(jnp.zeros(3))] == [0.0, 0.0]
    with pytest.raises(ValueError, match="draws = 1: must be an integer >= 2"):
        rms(jnp.ones((3, 1)))


def test_only_finite_sets_and_affine_targets_have_logarithms() -> None:
    blind, _ = fields("FM v", 2, 1e-3)
    u = jnp.zeros((1, 2))
    with pytest.raises(ValueError, match="must have a target that is alpha u"):
        log_estimation_error(blind.marginal, u, 0.1)  # type: ignore[arg-type]
    first, second = log_probabilities(blind.marginal, u, 0.1)  # type: ignore[arg-type]
    np.testing.assert_allclose(jnp.exp(first).sum(1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(jnp.exp(second).sum(1), 1.0, rtol=1e-5)
