"""Log densities along the sampling ODE against closed forms, within the error that they state."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jax.sharding import Mesh

from geonoise_jax import exact
from geonoise_jax.fields import ExactField, GuidedField
from geonoise_jax.process import schedules, targets, times
from geonoise_jax.process.process import Process
from geonoise_jax.sampling import divergence, flow, flow_solvers, ode_density
from geonoise_jax.sampling.ode_density import LogDensity, ode_log_density
from tests.sampling_oracles import MEAN, GaussianField, gaussian, marginal_law

RNG = np.random.default_rng


def log_normal(u: Any, mean: Any, var: Any) -> np.ndarray:
    u = np.asarray(u, np.float64)
    return -0.5 * (np.square(u - mean) / var + np.log(2.0 * math.pi * np.asarray(var))).sum(axis=-1)


def within_error(found: LogDensity, want: np.ndarray, share: float = 1.0) -> None:
    assert not found.failed.any()
    np.testing.assert_array_less(np.abs(found.values - want), share * found.error)


PAIRS = [
    (schedules.Linear(), targets.Noise(), "tsit5"),
    (schedules.Linear(t_max=1.0), targets.Velocity(), "heun"),
    (schedules.VPLinear(), targets.Signal(), "tsit5"),
    (schedules.VPLinear(t_min=1e-5), targets.VPrediction(), "heun"),
    (schedules.VPDiscrete(), targets.Score(), "heun"),
    (schedules.Cosine(), targets.EDMNetwork(), "heun"),
    (schedules.VE(), targets.UEDM(), "tsit5"),
    (schedules.Trigonometric(), targets.Equilibrium("truncated"), "tsit5"),
    (schedules.EDMScaled(), targets.Velocity(), "heun"),
    (schedules.UEDM(), targets.Noise(), "heun"),
]
QUICK = (1, 3, 4, 6, 9)


@pytest.mark.parametrize(
    ("schedule", "target", "solver"),
    [pytest.param(*pair, marks=[] if each in QUICK else pytest.mark.slow) for each, pair in enumerate(PAIRS)],
    ids=lambda each: type(each).__name__,
)
def test_gaussian_data_on_every_schedule(
    schedule: schedules.Schedule, target: targets.Target, solver: str, x64: None
) -> None:
    """The flow of a Gaussian is affine: the law that samplers end in is known, whatever they start from."""
    (mean, var), (mean_1, var_1) = (marginal_law(schedule, t) for t in (schedule.t_min, schedule.t_max))
    u = mean + np.sqrt(var) * 1.5 * RNG(0).standard_normal((12, 3))
    field = gaussian(schedule, target)
    found = ode_log_density(
        field, jnp.asarray(u), solver=solver, prior=lambda u: jnp.asarray(log_normal(u, mean_1, var_1))
    )
    within_error(found, log_normal(u, mean, var), share=0.75)
    assert found.error.max() < (3e-3 if solver == "tsit5" else 2e-2)
    start = float(schedule.scales(jnp.asarray(schedule.t_max))[1])
    stretch = np.sqrt(var_1 / var)
    sampled = log_normal(mean_1 + stretch * (u - mean), 0.0, start**2) + np.log(stretch).sum()
    within_error(ode_log_density(field, jnp.asarray(u), solver=solver), sampled, share=0.75)


def test_in_float32_rounding_is_in_the_error_and_costs_no_steps() -> None:
    """Observations 1e-5 from a datum, of which float32 knows three digits."""
    process, var = Process(schedules.Linear(t_min=1e-5), targets.Velocity()), np.full(3, 1e-12)
    field = GaussianField(MEAN.astype(np.float32), var.astype(np.float32), process)
    noise = RNG(0).standard_normal((32, 3))
    u = ((1.0 - 1e-5) * MEAN + 1e-5 * noise).astype(np.float32)
    t, s = np.float32(0.999).astype(float), np.float32(1e-5).astype(float)
    found = ode_log_density(
        field,
        u,
        tolerance=1e-7,
        prior=lambda u: jnp.asarray(log_normal(u, (1.0 - t) * MEAN, (1.0 - t) ** 2 * var + t**2)),
    )
    within_error(found, log_normal(u, (1.0 - s) * MEAN, (1.0 - s) ** 2 * var + s**2))
    assert np.median(found.error) < 0.1
    assert found.evaluations.max() < 1000


def test_every_schedule_is_among_the_pairs() -> None:
    assert {type(schedule) for schedule, _, _ in PAIRS} == set(schedules.SCHEDULES)


def frame(dim: int) -> np.ndarray:
    return np.linalg.qr(RNG(0).standard_normal((dim, 2)))[0]


LAWS: dict[str, Callable[[], exact.Distribution]] = {
    "mixture": lambda: exact.Mixture(np.array([[-1.0, 0.0], [1.0, 0.5], [0.0, 1.0]]), np.full((3, 2), 0.01)),
    "circles in R^2": lambda: exact.Circles([0.5, 1.0], None, np.eye(2)),
    "circles in R^8": lambda: exact.Circles([0.5, 1.0], None, frame(8)),
}


@pytest.mark.parametrize(
    "law", [each if each == "mixture" else pytest.param(each, marks=pytest.mark.slow) for each in LAWS]
)
@pytest.mark.parametrize(
    ("schedule", "target"),
    [
        (schedules.Linear(), targets.Velocity()),
        pytest.param(schedules.VE(), targets.Signal(), marks=pytest.mark.slow),
        pytest.param(schedules.VPLinear(), targets.Noise(), marks=pytest.mark.slow),
    ],
    ids=["Linear", "VE", "VPLinear"],
)
def test_exact_fields_give_the_density_of_noised_data(
    law: str, schedule: schedules.Schedule, target: targets.Target, x64: None
) -> None:
    process, data = Process(schedule, target), LAWS[law]()
    marginal = exact.Marginal(data, process, times.Uniform(schedule.t_min, schedule.t_max))
    x = data.sample(jax.random.key(0), 8)
    u = process.corrupt(x, jax.random.normal(jax.random.key(1), x.shape), schedule.t_min)
    field = ExactField(marginal, blind=False)
    found = ode_log_density(field, u, prior=lambda u: marginal.log_density_at(u, schedule.t_max))
    within_error(found, np.asarray(marginal.log_density_at(u, schedule.t_min)))
    assert found.error.max() < 5e-3
    assert "exact trace" in found.protocol


@dataclasses.dataclass(frozen=True)
class Flow:
    """A blind field, du/dt = A u: the sampling ODE is a matrix exponential."""

    matrix: Any
    process: Process = dataclasses.field(default=Process(schedules.Linear(), targets.Velocity()))
    blind: bool = True
    event_shape: tuple[int, ...] = (4,)

    def __call__(self, u: jax.Array, t: jax.Array) -> jax.Array:  # noqa: ARG002
        return u @ self.matrix.T


jax.tree_util.register_dataclass(Flow, ["matrix"], ["process", "blind", "event_shape"])
BLIND = Flow(RNG(0).standard_normal((4, 4)) * 0.5)


def of_flow(u: np.ndarray, start: float, end: float) -> np.ndarray:
    moved = u @ scipy.linalg.expm((start - end) * BLIND.matrix).T
    return log_normal(moved, 0.0, start**2) + (start - end) * np.trace(BLIND.matrix)


@pytest.mark.parametrize(("start", "end"), [(None, None), (0.95, 0.25)])
def test_a_blind_field_has_the_density_of_its_own_ode(start: float | None, end: float | None, x64: None) -> None:
    u = RNG(1).standard_normal((6, 4))
    solver = "tsit5" if start is None else "heun"
    found = ode_log_density(BLIND, jnp.asarray(u), solver=solver, start_time=start, end_time=end)
    within_error(found, of_flow(u, start or 0.999, end or 1e-3))
    assert "the blind field defines" in found.protocol
    assert found.probe_error.tolist() == [0.0] * 6


@pytest.mark.parametrize("noise", divergence.NOISES)
def test_probes_are_unbiased_with_the_standard_error_they_state(noise: str, x64: None) -> None:
    u = RNG(1).standard_normal((200, 4))
    settings: dict[str, Any] = {"solver": "heun", "num_steps": 64}
    want = ode_log_density(BLIND, jnp.asarray(u), **settings).values
    found = ode_log_density(
        BLIND, jnp.asarray(u), jax.random.key(0), divergence="hutchinson", probes=16, noise=noise, **settings
    )
    scores = (found.values - want) / found.probe_error
    # Of a t law of 15 degrees of freedom: 94% within 2, standard deviation 1.07.
    assert abs(scores.mean()) < 3.0 * 1.07 / math.sqrt(200)
    assert scores.std() == pytest.approx(1.07, rel=0.2)
    assert 0.88 < np.mean(np.abs(scores) < 2.0) <= 1.0
    assert f"16 {noise} probes" in found.protocol
    one = ode_log_density(BLIND, jnp.asarray(u[:2]), jax.random.key(0), probes=1, noise=noise, **settings)
    assert np.isinf(one.probe_error).all()


def test_entries_of_probes() -> None:
    signs, normal = (
        np.asarray(
            divergence.chosen(5, "hutchinson", 400, noise).vectors(jax.random.key(0), (5,), jnp.dtype("float32"))
        )
        for noise in divergence.NOISES
    )
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert abs(signs.mean()) < 0.1
    assert normal.std() == pytest.approx(1.0, abs=0.1)
    assert len(np.unique(normal)) == normal.size


@pytest.mark.parametrize("num", [3, 16, 37])
def test_products_with_the_jacobian_in_blocks(num: int, x64: None) -> None:
    matrix = RNG(0).standard_normal((5, 5))
    vectors = jnp.asarray(RNG(1).standard_normal((num, 5)))
    value, found = divergence.products(lambda y: jnp.asarray(matrix) @ jnp.sin(y), jnp.zeros(5), vectors)
    np.testing.assert_allclose(value, np.zeros(5))
    np.testing.assert_allclose(found, np.einsum("ki,ij,kj->k", vectors, matrix, vectors), rtol=1e-12)


def test_values_depend_on_observation_key_and_number_alone() -> None:
    u = jnp.asarray(RNG(1).standard_normal((11, 4)), jnp.float32)
    settings: dict[str, Any] = {"solver": "heun", "num_steps": 16, "probes": 2, "divergence": "hutchinson"}
    key, told = jax.random.key(3), []
    field = dataclasses.replace(BLIND, matrix=jnp.asarray(BLIND.matrix, jnp.float32))
    whole = ode_log_density(field, u, key, **settings)
    mesh = Mesh(np.asarray(jax.devices()).reshape(-1, 1), ("data", "model"))
    parts = [
        ode_log_density(field, u, key, batch_size=4, on_batch=lambda *at: told.append(at), **settings),
        ode_log_density(field, u, key, mesh=mesh, **settings),
        ode_log_density(field, np.asarray(u), jax.random.key(3, impl="rbg"), **settings),
    ]
    for part in parts[:2]:
        np.testing.assert_allclose(part.values, whole.values, rtol=1e-5)
        np.testing.assert_allclose(part.probe_error, whole.probe_error, rtol=1e-4)
    assert np.abs(parts[2].values - whole.values).max() > 1e-3
    assert told == [(4, 11), (8, 11), (11, 11)]


def test_adaptive_steps_cost_what_they_count_and_keep_to_the_tolerance(x64: None) -> None:
    schedule = schedules.VE()
    field, (mean, var) = gaussian(schedule, targets.Signal()), marginal_law(schedule, schedule.t_min)
    mean_1, var_1 = marginal_law(schedule, schedule.t_max)
    u = mean + np.sqrt(var) * RNG(0).standard_normal((8, 3))
    runs = [
        ode_log_density(
            field, jnp.asarray(u), tolerance=each, prior=lambda u: jnp.asarray(log_normal(u, mean_1, var_1))
        )
        for each in (1e-4, 1e-7)
    ]
    rough, fine = (np.abs(each.values - log_normal(u, mean, var)).max() for each in runs)
    assert fine < rough / 100
    assert (runs[1].evaluations > runs[0].evaluations).all()
    within_error(runs[1], log_normal(u, mean, var))


def test_where_the_field_is_not_smooth_the_steps_end() -> None:
    within = schedules.Linear()
    kinked = dataclasses.replace(BLIND, process=Process(within, targets.Equilibrium("truncated")))
    guided = GuidedField(kinked, 2.0, kinked, interval=(0.1, 0.5))
    for field, times_of in ((kinked, [0.2]), (guided, [0.1, 0.2, 0.5])):
        plan = ode_density._plan(field, flow_solvers.chosen("tsit5"), divergence.chosen(4), None, None)
        assert plan.breaks == tuple(flow.point(within, t).w for t in (1e-3, *times_of, 0.999))
    points = [flow.point(within, t).w for t in (1e-3, 0.2, 0.999)]
    fine, coarse = flow_solvers.chosen("tsit5").runs(points)
    assert points[1] in fine.nodes
    assert fine.nodes[[0, -1]].tolist() == points[::2]
    assert (np.diff(fine.nodes) > 0.0).all()
    assert np.diff(fine.nodes).max() <= math.log(10.0)
    assert (coarse.nodes == fine.nodes).all()
    assert (fine.coarser, coarse.coarser) == (1.0, 10.0)


@pytest.mark.parametrize("schedule", [cls() for cls in schedules.SCHEDULES], ids=lambda each: type(each).__name__)
def test_the_variable_of_the_flow_is_a_time(schedule: schedules.Schedule, x64: None) -> None:
    for t in np.linspace(schedule.t_min, schedule.t_max, 7):
        point = flow.point(schedule, t)
        assert float(flow.time_of(schedule, jnp.asarray(point.w))) == pytest.approx(t, rel=1e-9)
        assert (point.a, point.b) == pytest.approx((-point.s * np.tanh(point.w), point.s / np.cosh(point.w)))


@dataclasses.dataclass(frozen=True)
class Broken(Flow):
    """NaN far out."""

    def __call__(self, u: jax.Array, t: jax.Array) -> jax.Array:  # noqa: ARG002
        return jnp.where(jnp.abs(u) > 50.0, jnp.nan, u)


jax.tree_util.register_dataclass(Broken, ["matrix"], ["process", "blind", "event_shape"])


def test_what_does_not_arrive_is_no_number_and_is_counted() -> None:
    u = jnp.ones((3, 4)).at[1, 2].set(60.0)
    found = ode_log_density(Broken(jnp.eye(4)), u, solver="heun", num_steps=4)
    assert found.failed.tolist() == [0, 1, 0]
    assert np.isnan(found.values).tolist() == [False, True, False]
    assert np.isinf(found.error[1])


U = jnp.zeros((2, 4))
REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: ode_log_density(BLIND, U, solver="euler"), "solver = 'euler': "),
    (lambda: ode_log_density(BLIND, U, solver="heun", num_steps=3), "num_steps = 3: must be even"),
    (lambda: ode_log_density(BLIND, U, solver="heun", tolerance=1e-3), "tolerance = 0.001: has no effect"),
    (lambda: ode_log_density(BLIND, U, num_steps=10), "num_steps = 10: has no effect"),
    (lambda: ode_log_density(BLIND, U, tolerance=0.0), "tolerance = 0.0: must be"),
    (lambda: ode_log_density(BLIND, U, divergence="exact", probes=2), "probes = 2: has no effect"),
    (lambda: ode_log_density(BLIND, U, probes=2), "key = None: must be a PRNG key"),
    (lambda: ode_log_density(BLIND, U, jax.random.key(0), noise="cauchy"), "noise = 'cauchy': "),
    (lambda: ode_log_density(BLIND, U, jax.random.key(0), probes=0), "probes = 0: must be an integer >= 1"),
    (lambda: ode_log_density(BLIND, U[:, :3]), "u.shape = [2, 3]: must be [b, 4]"),
    (lambda: ode_log_density(BLIND, U.astype(int)), "u.dtype = int32"),
    (lambda: ode_log_density(BLIND, U[:0]), "len(u) = 0: must be"),
    (lambda: ode_log_density(BLIND, U, start_time=0.5), "prior = None: must be"),
    (lambda: ode_log_density(BLIND, U, end_time=2.0), "end_time = 2.0: must be"),
    (
        lambda: ode_log_density(BLIND, U, solver="heun", num_steps=2, prior=lambda u: u),
        "prior(u).shape = [2, 4]: must be [2]",
    ),
    (lambda: ode_log_density(BLIND, U, labels=np.zeros(3, int)), "labels.shape = [3]: must be [2]"),
    (
        lambda: ode_log_density(Flow(jnp.eye(4), Process(schedules.Linear(t_min=0.0), targets.Velocity())), U),
        "end_time = 0.0: must be a time at which there is noise, such as 1e-5",
    ),
]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[message[:24] for _, message in REFUSED])
def test_bad_input_is_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
