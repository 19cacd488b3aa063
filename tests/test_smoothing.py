"""Smoothed blind fields: each against another way to the same field, the clock against its closed forms, verdicts."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi

from geonoise_jax.drawing.outputs import rendered
from geonoise_jax.errors import UserError
from geonoise_jax.exact import FiniteSet, Marginal
from geonoise_jax.process.keys import root_key
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import Linear
from geonoise_jax.process.targets import Velocity
from geonoise_jax.process.times import Uniform
from geonoise_jax.sampling import sample
from geonoise_jax.stability import chi_moment
from geonoise_jax.studies import smoothing
from geonoise_jax.studies.quantiles import quantile
from geonoise_jax.studies.smoothing.agreement import agreement
from geonoise_jax.studies.smoothing.fields import Smoothing, normal_nodes, ring_field, ring_points
from geonoise_jax.studies.smoothing.radial import attractor, radial_field, share_in_time
from geonoise_jax.studies.smoothing.study import CLEAN, TARGETS, Ends, Options, Study, reached
from geonoise_jax.studies.verdicts import Outcome

VELOCITY = Process(Linear(), Velocity())
NAMES = [target.name for target in TARGETS]


def observations(dim: int, num: int = 24) -> np.ndarray:
    """Return points at distances of 0.003 to 1 per coordinate from the data."""
    generator = np.random.default_rng(dim)
    radius = np.exp(generator.uniform(math.log(3e-3), 0.0, num))[:, None]
    data = ring_points(dim)[generator.integers(0, 16, num)]
    return (data + radius * generator.standard_normal((num, dim))).astype(np.float32)


@pytest.mark.parametrize(
    "target",
    [each if number == 1 else pytest.param(each, marks=pytest.mark.slow) for number, each in enumerate(TARGETS)],
    ids=NAMES,
)
def test_fields_of_every_prior_are_those_of_the_marginal(target: smoothing.study.Target) -> None:
    u = observations(8)
    change = Smoothing(floor=0.1, ceiling=1.0) if target.clock else Smoothing()
    law = Uniform(*change.times(target.process))
    marginal = Marginal(FiniteSet(ring_points(8)), target.process, law, accuracy=1e-4, adaptive=False)
    wanted = np.asarray(marginal.field(jnp.asarray(u)))
    error = np.linalg.norm(np.asarray(ring_field(target.process, 8, change)(u)) - wanted, axis=1)
    assert (error / np.linalg.norm(wanted, axis=1)).max() < 2e-4


def test_prior_is_limited_by_ratios_of_noise_to_signal() -> None:
    assert Smoothing(floor=1.0 / 3.0, ceiling=1.0).times(VELOCITY) == pytest.approx((0.25, 0.5), rel=1e-5)
    assert Smoothing(floor=1e-9, ceiling=1e9).times(VELOCITY) == (VELOCITY.schedule.t_min, VELOCITY.schedule.t_max)


@pytest.mark.parametrize("dim", [2, 8])
def test_average_over_u_is_that_of_gaussian_draws(dim: int) -> None:
    u, width = observations(dim, 6), 0.3
    draws = np.random.default_rng(0).standard_normal((4000, dim)).astype(np.float32)
    exact = ring_field(VELOCITY, dim, Smoothing())
    for each, found in zip(u, np.asarray(ring_field(VELOCITY, dim, Smoothing(width=width), 512)(u)), strict=True):
        values = np.asarray(exact(each + width * draws))
        error = 4.5 * values.std(axis=0) / math.sqrt(len(draws)) + 0.01 * np.linalg.norm(found)
        assert (np.abs(values.mean(axis=0) - found) < error).all()


def test_nodes_come_in_pairs() -> None:
    nodes = normal_nodes(8, 16)
    np.testing.assert_array_equal(nodes[:8, :3], -nodes[8:, :3])
    np.testing.assert_array_equal(nodes[:8, 3], nodes[8:, 3])
    assert normal_nodes(8, 512)[:, 3].mean() == pytest.approx(chi(5).mean(), rel=0.01)
    with pytest.raises(UserError, match="draws = 12"):
        ring_field(VELOCITY, 8, Smoothing(), 12)


@pytest.mark.parametrize("target", TARGETS, ids=NAMES)
def test_slope_at_the_data_is_limited_and_nothing_else(target: smoothing.study.Target) -> None:
    slope, u = 3.0, observations(8)
    exact, limited = (np.asarray(ring_field(target.process, 8, Smoothing(slope=each))(u)) for each in (np.inf, slope))
    away = np.linalg.norm(u[:, None] - ring_points(8), axis=-1)
    anchor = ring_points(8)[away.argmin(1)] if target.system == "edm" else np.zeros_like(u)
    # The noise of VP is not quite 0 at a datum, as a is not quite 1.
    size = np.linalg.norm(limited - anchor, axis=1)
    assert (size <= slope * away.min(1) * 1.001 + 0.02).all()
    gentle = np.linalg.norm(exact - anchor, axis=1) < slope * away.min(1) - 0.05
    np.testing.assert_allclose(limited[gentle], exact[gentle], atol=1e-6)
    if target.system == "flow_matching":
        assert not gentle.all()


def test_speed_of_flow_matching_has_its_closed_forms() -> None:
    dim, small = 8, 1e-2
    speed = chi_moment(dim - 1, 1.0)

    def rate(change: Smoothing, radius: float) -> float:
        return float(radial_field(VELOCITY, dim, change)(jnp.asarray([[radius]]))[0, 0]) / radius

    assert 0.3 * rate(Smoothing(), 0.3) == pytest.approx(speed, rel=1e-3)
    # E[s] E[1 / s'] = 1 for chi laws of D - 1 and D degrees.
    assert rate(Smoothing(width=0.1), 1e-3) == pytest.approx((1.0 - 1.0 / dim) / 0.1, rel=0.01)
    floor = Smoothing(floor=0.1).times(VELOCITY)[0]
    assert rate(Smoothing(floor=0.1), 1e-3) == pytest.approx((dim - 1.0) / dim / floor, rel=0.03)
    assert rate(Smoothing(slope=5.0), small) == pytest.approx(5.0, rel=1e-6)
    high = Smoothing(ceiling=1.0).times(VELOCITY)[1]
    assert rate(Smoothing(ceiling=1.0), 3.0 * dim**0.5) == pytest.approx(1.0 / high, rel=0.02)


def test_clock_stops_where_its_integral_is_spent() -> None:
    dim, slope = 32, 10.0
    speed, start = chi_moment(dim - 1, 1.0), np.linspace(4.6, 6.0, 8).astype(np.float32)
    # Beyond the root of D the prior's edge makes the field faster than in the closed form.
    inside = start < dim**0.5 - 0.3
    found = np.abs(
        sample(
            radial_field(VELOCITY, dim, Smoothing(slope=slope)),
            root_key(0),
            len(start),
            "heun",
            80,
            grid="log_snr",
            noise=start[:, None],
        )[:, 0]
    )
    edge, late = speed / slope, start - speed
    wanted = np.where(late < edge, edge * np.exp(late / edge - 1.0), late)
    np.testing.assert_allclose(found[inside], wanted[inside], rtol=0.05, atol=2e-3)
    assert (np.diff(found) > 0.0).all()


def test_share_in_time_is_that_of_the_clock() -> None:
    dim, num = 32, 1500
    radius = np.sqrt(np.random.default_rng(0).chisquare(dim, (num, 1))).astype(np.float32)
    for ceiling in (np.inf, 3.0):
        change = Smoothing(ceiling=ceiling)
        stopped = sample(
            radial_field(VELOCITY, dim, change), root_key(0), num, "heun", 40, grid="log_snr", noise=radius
        )
        wanted = share_in_time(dim, change.times(VELOCITY)[1], CLEAN)
        # The speed is a little greater than the larger of its two limits.
        assert -0.02 < (np.abs(stopped) <= CLEAN).mean() - wanted < 0.12


def test_points_of_rest() -> None:
    edm, eqm = (next(each.process for each in TARGETS if each.system == name) for name in ("edm", "eqm"))
    field = ring_field(edm, 8, Smoothing(floor=0.3))
    shift, slope = attractor(field)
    rest = (1.0 - shift) * jnp.asarray(ring_points(8)[0])
    np.testing.assert_allclose(field(rest[None])[0], rest, atol=1e-4)
    steps = 5e-3 * jnp.eye(8)
    jacobian = (field(rest[None] + steps) - field(rest[None] - steps)) / 1e-2
    assert slope == pytest.approx(float(jnp.linalg.eigvals(jacobian).real.max()), rel=0.02)
    # In the plane an exact field of x has one point of rest, the geometric median of the data.
    assert attractor(ring_field(edm, 2, Smoothing()))[0] == pytest.approx(1.0, abs=1e-3)
    assert attractor(ring_field(eqm, 2, Smoothing(ceiling=0.3)))[0] < 0.01


def made_up(noise: float, velocity: float) -> Study:
    """Return a study in one dimension whose targets end at given distances, exactly as foreseen."""
    options = Options(
        dims=(8,), num=40, mollified=(0.1,), floor=(0.1,), ceiling=(1.0,), slope=(3.0,), widths=(), growth=(8, 128)
    )
    count = len(options.smoothings)
    distance = np.ones((4, 1, count, 40)) * np.array([noise, velocity, 0.01, 0.01])[:, None, None, None]
    ends = Ends(distance, distance, distance, np.tile(np.arange(40.0) % 16, (4, 1, count, 1)))
    empty = Ends(*(np.zeros((4, 1, 0, 40)) for _ in range(4)))
    clock = quantile(distance)[..., None] * np.ones(3)
    rest = np.tile([0.0, 0.1], (4, 1, count, 1))
    growth = np.array([[1.0, 2.0], [0.8, 0.8]])
    return Study(options, ends, clock, rest, empty, empty, np.zeros((1, 0, 2)), np.zeros((4, 1, 0)), growth)


@pytest.mark.parametrize(
    ("noise", "velocity", "outcome"),
    [(2.0, 0.1, Outcome.HOLDS), (2.0, 0.7, Outcome.FAILS), (0.1, 0.1, Outcome.FAILS)],
)
def test_ordering_holds_where_velocity_alone_is_clean(noise: float, velocity: float, outcome: Outcome) -> None:
    study = made_up(noise, velocity)
    told = [each for each in smoothing.verdicts(study) if "makes blind velocity clean" in each.claim]
    assert len(told) == 5
    assert {each.outcome for each in told} == {outcome}
    clean = next(each for each in smoothing.verdicts(study) if each.claim.startswith("blind velocity (FM) is clean"))
    assert clean.outcome is (Outcome.HOLDS if velocity <= CLEAN else Outcome.FAILS)


def test_made_up_study_agrees_with_itself() -> None:
    study = made_up(2.0, 0.7)
    found = agreement(study, 0, 0)
    np.testing.assert_allclose(found.ratio, 1.0)
    assert math.isnan(found.slope)
    grows = smoothing.verdicts(study)[-1]
    assert grows.value == pytest.approx(0.25)
    assert grows.outcome is Outcome.HOLDS
    assert reached(study.ends.datum)[0, 0, 0] == pytest.approx(16.0, rel=0.05)
    assert reached(np.zeros((3, 5))).tolist() == [1.0] * 3


@pytest.mark.parametrize("wrong", [{"dims": (1,)}, {"floor": (-0.1,)}, {"ceiling": (0.0,)}, {"growth": (8, 4)}])
def test_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        Options(**wrong)


def test_study_is_measured_told_and_drawn() -> None:
    options = Options(dims=(8,), num=64, mollified=(), floor=(), ceiling=(1.0,), slope=(), widths=(), quick=True)
    study = smoothing.measure(options)
    noise, velocity, x, eqm = quantile(study.ends.distance)[:, 0]
    assert noise[0] > 0.9
    assert 0.5 < velocity[0] < 1.1
    assert max(x[0], eqm[0], noise[1], velocity[1]) < CLEAN
    text = smoothing.table(study)
    assert "ceiling 1" in text
    assert "floor 0" not in text
    rendered(smoothing.picture(study))
    assert set(smoothing.arrays(study)["property"]) == {"exact", "ceiling"}
