"""Samplers without a clock: equilibrium descent and both Nesterov forms against their algebra, BDDM against its law."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.exact import FiniteSet, Marginal
from geonoise_jax.fields import ExactField
from geonoise_jax.process import schedules, targets
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import SCHEDULES, Schedule
from geonoise_jax.process.targets import TARGETS, Target
from geonoise_jax.process.times import Uniform
from geonoise_jax.sampling.autonomous import check_descent, eqm_descent, eqm_nesterov, eqm_nesterov_released
from geonoise_jax.sampling.denoising import bddm
from geonoise_jax.sampling.generation import generate
from geonoise_jax.sampling.outcome import Outcome

EQM = Process(schedules.Linear(), targets.Equilibrium())
DENOISER = Process(schedules.VE(), targets.Signal())
DESCENTS = {"descent": eqm_descent, "nesterov": eqm_nesterov, "released": eqm_nesterov_released}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Power:
    """The gradient of ``sum curvature |u|^(power + 1) / (power + 1)``."""

    curvature: Any
    power: int = dataclasses.field(default=1, metadata={"static": True})
    blind: bool = dataclasses.field(default=True, metadata={"static": True})
    process: Process = dataclasses.field(default=EQM, metadata={"static": True})

    @property
    def event_shape(self) -> tuple[int, ...]:
        return jnp.shape(self.curvature)

    def __call__(self, u: jax.Array, t: jax.Array) -> jax.Array:  # noqa: ARG002
        return self.curvature[None] * u**self.power


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OneDatum:
    """The blind denoiser of a single datum."""

    datum: Any
    blind: bool = dataclasses.field(default=True, metadata={"static": True})
    process: Process = dataclasses.field(default=DENOISER, metadata={"static": True})

    @property
    def event_shape(self) -> tuple[int, ...]:
        return jnp.shape(self.datum)

    def __call__(self, u: jax.Array, t: jax.Array) -> jax.Array:  # noqa: ARG002
        return jnp.broadcast_to(self.datum, u.shape)


def circle(dim: int, count: int = 16) -> np.ndarray:
    """Points on the unit circle in a plane of R^dim."""
    frame = np.linalg.qr(np.random.default_rng(0).normal(size=(dim, 2)))[0]
    angle = 2.0 * np.pi * np.arange(count) / count
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) @ frame.T


def exact(points: np.ndarray, process: Process, weights: Any = None) -> ExactField:
    law = Uniform(process.schedule.t_min, process.schedule.t_max)
    data = FiniteSet(jnp.asarray(points, jnp.float32), weights)
    return ExactField(Marginal(data, process, law, accuracy=1e-3, adaptive=False))


def distances(u: Any, points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(np.asarray(u)[:, None] - points[None], axis=-1)


def run(sampler: Any, field: Any, u: Any, keys: Any = None, **options: Any) -> Outcome:
    return jax.jit(functools.partial(sampler, **options))(field, u, keys)


@pytest.mark.parametrize("dim", [8, pytest.param(64, marks=pytest.mark.slow)])
def test_descent_reaches_the_data_and_stays_there(dim: int) -> None:
    points, tolerance = circle(dim), 1e-3
    u = jnp.concatenate([jax.random.normal(jax.random.key(1), (32, dim)), jnp.asarray(points, jnp.float32)])
    outcome = run(eqm_descent, exact(points, EQM), u, step_size=0.1, max_steps=200, tolerance=tolerance)
    away, statistics = distances(outcome.u, points), outcome.statistics
    assert statistics["converged"].all()
    assert (statistics["grad_norm"] <= tolerance).all()
    # Near a datum f = u - E[x | u], and E[x | u] is the datum up to O(r^(D - 1)).
    np.testing.assert_allclose(away.min(axis=1), math.sqrt(dim) * statistics["grad_norm"], rtol=1e-2, atol=1e-5)
    assert len(set(away[:32].argmin(axis=1))) > 8
    # Data are fixed points, found to be so by one evaluation.
    np.testing.assert_array_equal(statistics["evaluations"][32:], 1.0)
    np.testing.assert_array_equal(outcome.u[32:], u[32:])


def test_in_two_dimensions_descent_collapses_to_the_geometric_median() -> None:
    """E[x | u] is Weiszfeld's map at D = 2: the data of a circle are no attractors, its centre is."""
    points = circle(2)
    u = jax.random.normal(jax.random.key(1), (32, 2))
    outcome = run(eqm_descent, exact(points, EQM), u, step_size=0.5, max_steps=200, tolerance=1e-3)
    collapsed = np.linalg.norm(outcome.u, axis=1) < 0.1
    assert collapsed.mean() > 0.9
    assert distances(outcome.u, points)[collapsed].min() > 0.9


@pytest.mark.slow
def test_adaptive_stop_spends_fewer_evaluations_at_the_same_distance() -> None:
    points = circle(8)
    levels = jnp.repeat(jnp.asarray([0.05, 0.2, 0.5, 0.999]), 16)[:, None]
    x = jnp.asarray(np.tile(points, (4, 1)), jnp.float32)
    u = (1.0 - levels) * x + levels * jax.random.normal(jax.random.key(2), x.shape)
    field = exact(points, Process(schedules.Linear(), targets.Equilibrium("truncated")))
    descend = functools.partial(run, eqm_descent, field, u, step_size=0.01)
    adaptive = descend(max_steps=400, tolerance=1e-3)
    evaluations = np.asarray(adaptive.statistics["evaluations"])
    # The least budget that brings all of them to the same distance.
    budget = int(evaluations.max())
    fixed = descend(max_steps=budget)
    np.testing.assert_array_equal(fixed.statistics["evaluations"], budget)
    assert evaluations.mean() < 0.8 * budget
    near, reached = (distances(outcome.u, points).min(axis=1).max() for outcome in (fixed, adaptive))
    assert max(near, reached) < 2e-4
    # Cleaner inputs need fewer evaluations.
    assert (np.diff(evaluations.reshape(4, 16).mean(axis=1)) > 0.0).all()


def test_two_steps_by_hand() -> None:
    """On the energy |u|^4 / 4 the three forms differ at the second step."""
    h, mu, u = 0.1, 0.4, np.array([1.0, -0.5])
    first = u - h * u**3
    ahead = first + mu * (first - u)
    second = {
        "descent": first - h * first**3,
        "nesterov": ahead - h * ahead**3,
        "released": first - h * (first - h * mu * u**3) ** 3,
    }
    field = Power(jnp.ones(2), power=3)
    for name, sampler in DESCENTS.items():
        options = {} if name == "descent" else {"momentum": mu}
        for steps, want in ((1, first), (2, second[name])):
            got = run(sampler, field, jnp.asarray(u)[None], step_size=h, max_steps=steps, **options)
            np.testing.assert_allclose(got.u[0], want, rtol=1e-6)
    assert len({tuple(np.round(values, 6)) for values in second.values()}) == 3


def test_rates_on_a_quadratic(x64: None) -> None:
    """Nesterov's rate is 1 - sqrt(m / L), descent's and the released form's 1 - m / L (nearly, for the latter)."""
    low, high, steps = 0.01, 1.0, 120
    root = math.sqrt(low / high)
    momentum = (1.0 - root) / (1.0 + root)
    u = jnp.ones((1, 2))
    log_rate = {}
    for name, sampler in DESCENTS.items():
        options = {} if name == "descent" else {"momentum": momentum}
        descend = functools.partial(run, sampler, Power(jnp.asarray([low, high])), u, step_size=1.0 / high, **options)
        ends = [descend(max_steps=n).u[0, 0] for n in (steps, 2 * steps)]
        log_rate[name] = float(jnp.log(ends[1] / ends[0])) / steps
    assert log_rate["descent"] == pytest.approx(math.log1p(-low / high), rel=1e-9)
    # At the critical momentum the root is double: error ~ (1 + root k) rate^k.
    growth = math.log((1.0 + 2.0 * steps * root) / (1.0 + steps * root)) / steps
    assert log_rate["nesterov"] == pytest.approx(math.log1p(-root) + growth, rel=1e-2)
    # The released form's error e_{k+1} = e_k - h m (e_k + momentum (e_k - e_{k-1})): the larger root of its quadratic.
    middle = 1.0 - low / high * (1.0 + momentum)
    root_released = 0.5 * (middle + math.sqrt(middle**2 + 4.0 * low / high * momentum))
    assert log_rate["released"] == pytest.approx(math.log(root_released), rel=1e-6)
    assert log_rate["nesterov"] < 5.0 * log_rate["released"] < 0.0


@pytest.mark.parametrize("name", DESCENTS)
def test_a_stopped_sample_is_where_its_field_is_small(name: str) -> None:
    curvature = jnp.asarray([1.0, 0.3, 0.1])
    field, tolerance = Power(curvature), 1e-3
    u = jnp.asarray([[1.0, 2.0, -3.0], [0.0, 0.0, 1e-3], [1e3, 0.0, 0.0], [jnp.nan, 0.0, 0.0]])
    outcome = run(DESCENTS[name], field, u, step_size=0.5, max_steps=60, tolerance=tolerance)
    norm = np.sqrt(np.mean((curvature[None] * outcome.u) ** 2, axis=1))
    statistics = {key: np.asarray(value) for key, value in outcome.statistics.items()}
    np.testing.assert_array_equal(statistics["converged"], [0.0, 1.0, 1.0, 0.0])
    stopped = statistics["converged"] == 1.0
    np.testing.assert_allclose(statistics["grad_norm"][stopped], norm[stopped], rtol=1e-5)
    assert (norm[stopped] <= tolerance).all()
    # One evaluation shows that there is nothing to do, for the one at rest and for the one beyond saving.
    np.testing.assert_array_equal(statistics["evaluations"][[1, 3]], 1.0)
    assert (statistics["evaluations"] <= 60).all()
    assert np.isnan(outcome.u[3, 0])


def test_a_stopped_sample_does_not_start_again() -> None:
    """Momentum would carry it through the minimum and up the other side."""
    options = {"step_size": 0.5, "momentum": 0.9, "max_steps": 20, "tolerance": 0.1}
    outcome = run(eqm_nesterov, Power(jnp.ones(1)), jnp.asarray([[1.0], [100.0]]), **options)
    # The second look-ahead, 0.5 - 0.9 * 0.5, is near enough; the next would be at -0.355.
    np.testing.assert_allclose(outcome.u[0, 0], 0.05, rtol=1e-5)
    np.testing.assert_array_equal(outcome.statistics["evaluations"][0], 2.0)
    assert float(outcome.statistics["evaluations"][1]) > 2.0


@pytest.mark.parametrize("name", DESCENTS)
def test_samples_do_not_see_their_batch(name: str) -> None:
    field = Power(jnp.asarray([1.0, 0.3, 0.2]))
    u = jnp.asarray([[1.0, 2.0, -3.0], [0.1, 0.0, 0.2], [1e-3, 0.0, 0.0], [0.0, 5.0, 0.0]])
    options = {"step_size": 0.5, "max_steps": 80, "tolerance": 1e-2}
    together = run(DESCENTS[name], field, u, **options)
    assert len(set(np.asarray(together.statistics["evaluations"]).tolist())) == 4
    for i in range(4):
        alone = run(DESCENTS[name], field, u[i : i + 1], **options)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[0], b[i], rtol=1e-5), alone, together)


def test_new_data_do_not_retrace() -> None:
    traces = []

    @jax.jit
    def descend(field: Any, u: jax.Array) -> Outcome:
        traces.append(field.event_shape)
        return eqm_descent(field, u, max_steps=3)

    for scale in (1.0, 2.0):
        descend(Power(jnp.full(2, scale)), jnp.ones((1, 2)))
    assert len(traces) == 1


def test_what_can_be_descended() -> None:
    """Only targets that vanish at the data, whatever the level, and point away from them."""
    accepted = set()
    for schedule, target in itertools.product(SCHEDULES, TARGETS):
        try:
            check_descent(Power(jnp.ones(1), process=Process(schedule(), target())))
        except ValueError:
            continue
        accepted.add((schedule.__name__, target.__name__))
    noise_like = {("VE", "Noise"), ("VE", "Velocity")}
    assert accepted == {("Linear", "Equilibrium"), ("Linear", "Velocity")} | noise_like


@pytest.mark.parametrize(
    ("schedule", "target", "reason"),
    [
        (schedules.Linear(), targets.Score(), "does not point from the data to the noise"),
        (schedules.Linear(), targets.Noise(), "is not zero at the data"),
        (schedules.VE(), targets.Equilibrium(), "is not zero at the data"),
        (schedules.VE(), targets.Signal(), "bddm"),
    ],
)
def test_refusal_says_why(schedule: Schedule, target: Target, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        eqm_descent(Power(jnp.ones(2), process=Process(schedule, target)), jnp.ones((1, 2)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_size": 0.0}, "step_size = 0.0: must be a number in (0, inf)"),
        ({"momentum": 1.0}, "momentum = 1.0: must be a number in [0, 1)"),
        ({"momentum": -0.1}, "momentum = -0.1: must be a number in [0"),
        ({"tolerance": -1.0}, "tolerance = -1.0: must be a number in [0"),
        ({"tolerance": float("nan")}, "tolerance = nan: must be a number in [0"),
        ({"max_steps": 0}, "max_steps = 0: must be an integer >= 1"),
        ({"max_steps": 2.5}, "max_steps = 2.5: must be an integer >= 1"),
    ],
)
def test_bad_options_of_descent_are_named(options: dict[str, Any], message: str) -> None:
    for sampler in (eqm_nesterov, eqm_nesterov_released):
        with pytest.raises(ValueError) as raised:  # noqa: PT011
            sampler(Power(jnp.ones(2)), jnp.ones((1, 2)), **options)
        assert message in str(raised.value)


def test_conditional_fields_are_refused() -> None:
    samplers: list[Any] = [*DESCENTS.values(), bddm]
    for sampler in samplers:
        with pytest.raises(ValueError, match="field.blind = False: must be True"):
            sampler(Power(jnp.ones(2), blind=False), jnp.ones((1, 2)), jax.random.split(jax.random.key(0), 1))


@pytest.mark.parametrize("alpha", [0.0, 0.4, 0.9])
def test_bddm_on_one_datum_follows_its_law(alpha: float) -> None:
    """E sigma'^2 = sigma^2 (e^-2h + alpha (1 - e^-2h)) in one step: equation (3)."""
    num, dim, h = 4096, 16, 0.3
    datum = jnp.linspace(-1.0, 1.0, dim)
    u = datum[None] + 2.0 * jax.random.normal(jax.random.key(0), (num, dim))
    keys = jax.random.split(jax.random.key(1), num)
    outcome = run(bddm, OneDatum(datum), u, keys, step_size=h, alpha=alpha, max_steps=2)
    before, after = np.asarray(outcome.statistics["noise_level"]).T
    np.testing.assert_allclose(before, np.sqrt(np.mean((np.asarray(u) - datum[None]) ** 2, axis=1)), rtol=1e-5)
    contraction = math.exp(-2.0 * h) + alpha * -math.expm1(-2.0 * h)
    assert contraction < 1.0
    ratio = (after / before) ** 2
    # The ratio is a shrunk residual plus noise: its variance follows from a chi square and a Gaussian.
    noise = alpha * -math.expm1(-2.0 * h)
    sd = math.sqrt((2.0 * noise**2 + 4.0 * noise * math.exp(-2.0 * h)) / dim / num)
    assert abs(ratio.mean() - contraction) < 4.0 * sd + 1e-5
    np.testing.assert_array_equal(outcome.u, np.broadcast_to(datum, u.shape))


def test_bddm_counts_and_traces_its_steps() -> None:
    h, end, level = 0.25, 0.01, np.array([4.0, 0.5, 0.005])
    datum = jnp.arange(3.0)
    u = datum[None] + jnp.asarray(level)[:, None]
    keys = jax.random.split(jax.random.key(0), 3)
    options = {"step_size": h, "alpha": 0.0, "max_steps": 40}
    statistics = run(bddm, OneDatum(datum), u, keys, sigma_end=end, **options).statistics
    want = np.maximum(np.ceil(np.log(level / end) / h), 0.0) + 1.0
    np.testing.assert_array_equal(statistics["evaluations"], want)
    np.testing.assert_array_equal(statistics["converged"], 1.0)
    step = np.arange(40)
    trace = np.where(step < want[:, None], level[:, None] * np.exp(-h * step), np.nan)
    np.testing.assert_allclose(statistics["noise_level"], trace, rtol=1e-3)
    np.testing.assert_allclose(statistics["sigma"], level * np.exp(-h * (want - 1.0)), rtol=1e-3)
    # By default it ends at the schedule's least noise, 0.002, which 40 steps do not reach from 80.
    short = run(bddm, OneDatum(datum), datum[None] + 80.0 * jnp.ones((3, 1)), keys, **options).statistics
    np.testing.assert_array_equal(short["converged"], 0.0)
    np.testing.assert_array_equal(short["evaluations"], 40.0)
    last = run(bddm, OneDatum(datum), u, keys, **options).statistics["sigma"]
    assert ((last <= 0.002) & (last > 0.002 * math.exp(-h) * 0.99)).all()


def test_bddm_samples_depend_on_their_key_alone() -> None:
    datum = jnp.zeros(5)
    u = jnp.asarray([3.0, 1.0, 0.1])[:, None] * jnp.ones((3, 5))
    keys = jax.random.split(jax.random.key(4), 3)
    options = {"step_size": 0.2, "alpha": 0.5, "sigma_end": 0.05, "max_steps": 200}
    together = run(bddm, OneDatum(datum), u, keys, **options).statistics
    for i in range(3):
        alone = run(bddm, OneDatum(datum), u[i : i + 1], keys[i : i + 1], **options).statistics
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[0], b[i], rtol=1e-4), alone, together)
    other = run(bddm, OneDatum(datum), u, jnp.roll(keys, 1), **options).statistics
    assert not np.allclose(other["noise_level"], together["noise_level"], equal_nan=True)


@pytest.mark.slow
def test_bddm_draws_the_data_with_their_weights() -> None:
    weights, num, dim = np.array([0.1, 0.2, 0.3, 0.4]), 512, 64
    points = np.random.default_rng(3).normal(size=(4, dim))
    u = 80.0 * jax.random.normal(jax.random.key(1), (num, dim))
    keys = jax.random.split(jax.random.key(2), num)
    outcome = run(bddm, exact(points, DENOISER, weights), u, keys, step_size=0.1)
    away = distances(outcome.u, points)
    assert outcome.statistics["converged"].all()
    assert away.min(axis=1).max() < 1e-4
    frequency = np.bincount(away.argmin(axis=1), minlength=4) / num
    np.testing.assert_array_less(np.abs(frequency - weights), 4.0 * np.sqrt(weights * (1.0 - weights) / num))
    # The implicit schedule falls by 1 - alpha = 1/2 a unit of time, on average.
    trace = np.asarray(outcome.statistics["noise_level"])[:, :150]
    slope = np.diff(np.log(np.nanmean(trace**2, axis=0))) / 0.1
    expected = math.log(math.exp(-0.2) + 0.5 * -math.expm1(-0.2)) / 0.1
    assert slope[:100].mean() == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.0}, "alpha = 1.0: must be a number in [0, 1)"),
        ({"alpha": -0.5}, "alpha = -0.5: must be a number in [0"),
        ({"step_size": 0}, "step_size = 0: must be a number in (0"),
        ({"sigma_end": 0.0}, "sigma_end = 0.0: must be a number in (0"),
        ({"max_steps": 0}, "max_steps = 0: must be an integer >= 1"),
    ],
)
def test_bad_options_of_bddm_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        bddm(OneDatum(jnp.zeros(2)), jnp.ones((1, 2)), jax.random.split(jax.random.key(0), 1), **options)
    assert message in str(raised.value)


def test_bddm_needs_a_denoiser_that_keeps_the_signal() -> None:
    u, keys = jnp.ones((1, 2)), jax.random.split(jax.random.key(0), 1)
    for process, message in (
        (Process(schedules.VE(), targets.Noise()), r"parameterization = Noise\(\): must be Signal\(\)"),
        (Process(schedules.Linear(), targets.Signal()), r"schedule = Linear\(.*\): must keep the signal, a = 1"),
    ):
        with pytest.raises(ValueError, match=message):
            bddm(OneDatum(jnp.zeros(2), process=process), u, keys)


def test_samples_that_did_not_converge_and_those_that_are_not_finite_are_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    points = circle(8)
    field = exact(points, Process(schedules.VE(t_max=20.0), targets.Signal()))
    with caplog.at_level("WARNING", logger="geonoise_jax"):
        generate(field, jax.random.key(0), 3, "bddm", max_steps=2)
        generate(field, jax.random.key(0), 3, "euler", 2, x=np.full((3, 8), np.nan), start_time=1.0)
    assert caplog.messages == [
        "bddm reached max_steps before it converged with 3 of 3 samples",
        "euler: 3 of 3 samples are not finite",
    ]
