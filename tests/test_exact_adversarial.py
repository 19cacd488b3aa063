"""The exact field of sets that are hard for it, against brute force: the asked accuracy is delivered or said."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from sklearn.datasets import load_sample_images

from geonoise_jax.exact import FiniteSet, Marginal, QuadratureWarning
from geonoise_jax.exact.delivery import Report, in_one_warning, listening
from geonoise_jax.fields import ExactField
from geonoise_jax.process import schedules, targets, times
from geonoise_jax.process.process import Process
from geonoise_jax.sampling import sample
from geonoise_jax.sampling.generation import generate
from tests.exact_judge import Judged, judge
from tests.exact_laws import laws
from tests.exact_sets import PROCESSES, SETS, levels, observations

COUNT = 300
# Rounding of float32 reaches the variance of a posterior that is a hundredth of its place wide.
SLACK = {"float32": 2.0, "float64": 1.0}


def case(kind: str, name: str, dim: int, num: int = 5) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, Judged]:
    """Points, weights, observations from one end of the range to the other, and their brute-force values."""
    process, law = PROCESSES[name]
    points, weights = SETS[kind](np.random.default_rng(dim), COUNT, dim)
    points = points.astype(np.float32)
    u = observations(points, weights, process, levels(law, num)).astype(np.float32)
    return points, weights, u, judge(points, weights, process, law, u)


def off(value: jax.Array, exact: np.ndarray, least: np.ndarray | float = 0.0) -> np.ndarray:
    """Max-norm relative error of every query."""
    size = np.maximum(np.abs(exact).reshape(len(exact), -1).max(axis=1), least)
    return np.abs(np.asarray(value, np.float64) - exact).reshape(len(exact), -1).max(axis=1) / size


def check(marginal: Marginal, u: jax.Array, exact: Judged, slack: float) -> None:
    """Require of every quantity and query the accuracy, or a warning by the call that returned it."""
    said = np.zeros(len(u))

    def heard(report: Report) -> None:
        np.maximum(said, report.error.sum(axis=0), out=said)

    least: dict[str, np.ndarray | float] = {"log_density": 1.0, "std": 1e-5 * exact.mean}
    for name in ("log_density", "field", "energy_grad", "mean", "std"):
        said[:] = 0.0
        with warnings.catch_warnings(), listening(heard):
            warnings.simplefilter("ignore")
            if name in ("mean", "std"):
                posterior = marginal.posterior(u)
                value = posterior.mean if name == "mean" else jnp.sqrt(posterior.var)
            else:
                value = getattr(marginal, name)(u)
        error, accuracy = off(value, getattr(exact, name), least.get(name, 0.0)), marginal.accuracy_in(u.dtype)
        assert (error <= slack * np.maximum(accuracy, 3.0 * said)).all(), (name, error, said)


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize(
    ("name", "dim"),
    [
        ("Linear", 2),
        *(pytest.param(name, dim, marks=pytest.mark.slow) for name in PROCESSES for dim in (8, 784, 3072)),
    ],
)
def test_hard_sets(kind: str, name: str, dim: int) -> None:
    points, weights, u, exact = case(kind, name, dim)
    check(Marginal(FiniteSet(points, weights), *PROCESSES[name]), jnp.asarray(u), exact, SLACK["float32"])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", ["clusters", "weighted"])
@pytest.mark.parametrize(("name", "dim"), [("UEDM", 2), pytest.param("Linear", 784, marks=pytest.mark.slow)])
def test_hard_sets_in_float64(kind: str, name: str, dim: int) -> None:
    """To 1e-8: the judge itself rounds to 1e-9 and less."""
    points, weights, u, exact = case(kind, name, dim)
    marginal = Marginal(FiniteSet(points.astype(np.float64), weights), *PROCESSES[name], accuracy=1e-8)
    check(marginal, jnp.asarray(u, jnp.float64), exact, SLACK["float64"])


def test_an_augmented_set_of_images() -> None:
    """Copies with a little noise: a small cluster far from what most of the set is like decides."""
    rng = np.random.default_rng(0)
    smooth = np.cumsum(rng.normal(size=(250, 768)), axis=1) / 16.0
    points = (np.tanh(np.repeat(smooth, 8, axis=0)) + 0.05 * rng.normal(size=(2000, 768))).astype(np.float32)
    process, law = PROCESSES["Linear"]
    for t in (0.1, 0.2):
        u = observations(points, None, process, np.full(16, t), seed=2).astype(np.float32)
        check(
            Marginal(FiniteSet(points), process, law),
            jnp.asarray(u),
            judge(points, None, process, law, u),
            SLACK["float32"],
        )


def test_crops_of_photographs_and_their_mirror_images() -> None:
    """Where the points that count most are not among those that are compared by differences, that is noticed."""
    rng, photographs = np.random.default_rng(0), load_sample_images().images
    crops = []
    for _ in range(2500):
        whole = photographs[rng.integers(2)]
        row, column = (rng.integers(size - 32) for size in whole.shape[:2])
        crops.append(whole[row : row + 32, column : column + 32] / np.float32(127.5) - 1)
    points = np.concatenate([crops, np.asarray(crops)[:, :, ::-1]]).reshape(5000, -1).astype(np.float32)
    process, law = Process(schedules.Linear(), targets.Velocity()), times.Uniform(0.001, 0.999)
    rng = np.random.default_rng(1)
    u = 0.6 * points[rng.integers(5000, size=32)] + 0.4 * rng.normal(size=(32, 3072))
    u = u[[0, 1, 9, 28]].astype(np.float32)
    check(Marginal(FiniteSet(points), process, law), jnp.asarray(u), judge(points, None, process, law, u), 1.0)


def test_devices_change_nothing() -> None:
    points, weights, u, exact = case("nested", "Linear", 64, num=8)
    mesh = Mesh(np.asarray(jax.devices()).reshape(2, 4), ("queries", "data"))
    law = FiniteSet(points, weights, num_near=8).shard(mesh, "data", "queries")
    check(Marginal(law, *PROCESSES["Linear"]), jnp.asarray(u), exact, SLACK["float32"])


def rough() -> tuple[Marginal, jax.Array]:
    """A marginal that is asked for more than float32 can give, and queries."""
    points, weights, u, _ = case("mirrored", "Linear", 64)
    return Marginal(FiniteSet(points, weights), *PROCESSES["Linear"], accuracy=1e-8), jnp.asarray(u)


def told(call: Callable[[Marginal, jax.Array], object], marginal: Marginal, u: jax.Array) -> None:
    """Call, and wait for what a jitted function says."""
    call(marginal, u)
    jax.effects_barrier()


@pytest.mark.parametrize(
    "call",
    [
        lambda marginal, u: marginal.field(u),
        lambda marginal, u: marginal.energy_grad(u),
        lambda marginal, u: marginal.log_density(u),
        lambda marginal, u: marginal.posterior_denoiser(u),
        lambda marginal, u: marginal.inverse_noise_moment(u, 1.0),
        lambda marginal, u: marginal.posterior(u),
        lambda marginal, u: marginal.decompose(u),
        lambda marginal, u: marginal.analyse(u, 0.5),
        lambda marginal, u: ExactField(marginal)(u, jnp.full(len(u), 0.5)),
        lambda marginal, u: jax.block_until_ready(jax.jit(lambda m, u: m.field(u))(marginal, u)),
        lambda marginal, u: sample(ExactField(marginal), jax.random.key(0), 2, "euler", 2),  # noqa: ARG005
    ],
    ids=lambda call: "-".join(name for name in call.__code__.co_names if name not in ("jax", "jnp")),
)
def test_what_is_missed_is_said_by_the_call_that_returns_it(call: Callable[[Marginal, jax.Array], object]) -> None:
    marginal, u = rough()
    with pytest.warns(QuadratureWarning, match=r"estimated relative error .* it is rounding: compute in float64"):
        told(call, marginal, u)


def test_more_points_are_compared_where_rounding_asks_for_it() -> None:
    """A hundred copies of each point are more than the near points, and their products round in float32."""
    rng = np.random.default_rng(3)
    points = np.repeat(rng.normal(size=(5, 3072)), 100, axis=0).astype(np.float32)
    process, law = PROCESSES["Linear"]
    u = observations(points, None, process, np.full(4, 0.004)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error", QuadratureWarning)
        value = Marginal(FiniteSet(points), process, law).field(jnp.asarray(u))
    assert off(value, judge(points, None, process, law, u).field).max() < 1e-5


@pytest.mark.parametrize("dim", [64, pytest.param(3072, marks=pytest.mark.slow)])
def test_no_false_alarm_on_image_sized_data(dim: int) -> None:
    """VE with EDM's law of noise levels, few queries, as a sampler asks for."""
    rng = np.random.default_rng(dim)
    points = np.tanh(rng.normal(size=(200, 5)) @ rng.normal(size=(5, dim))).astype(np.float32)
    process, law = PROCESSES["VE"]
    u = jnp.asarray(observations(points, None, process, np.array([0.05, 0.5, 5.0])), jnp.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error", QuadratureWarning)
        marginal = Marginal(FiniteSet(points), process, law)
        marginal.field(u)
        marginal.posterior(u)
        marginal.log_density(u)


@pytest.mark.parametrize(
    "schedule", [schedules.Linear(), pytest.param(schedules.VE(), marks=pytest.mark.slow)], ids=["Linear", "VE"]
)
def test_laws_without_points_know_their_rounding(schedule: schedules.Schedule) -> None:
    """Down to the lowest noise, where an observation in float32 hardly differs from a datum."""
    process, prior = Process(schedule, targets.Velocity()), times.Uniform(schedule.t_min, schedule.t_max)
    share = np.array([1e-4, 0.01, 0.1, 0.5])
    t = jnp.asarray(np.repeat(schedule.t_min + (schedule.t_max - schedule.t_min) * share, 8), jnp.float32)
    for name in ("Mixture", "Circles"):
        law = laws()[name]
        x = law.sample(jax.random.key(0), len(t))
        u = process.corrupt(x, jax.random.normal(jax.random.key(1), x.shape, x.dtype), t)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", QuadratureWarning)
            found = Marginal(law, process, prior).analyse(u)
            with jax.enable_x64(True):
                precise = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), law)
                exact = Marginal(precise, process, prior).analyse(jnp.asarray(np.asarray(u), jnp.float64))
        for quantity in ("field", "energy_grad", "log_density"):
            least = 1.0 if quantity == "log_density" else 0.0
            error = off(getattr(found, quantity), np.asarray(getattr(exact, quantity)), least)
            said = np.asarray(found.errors[quantity])
            assert (error <= 3.0 * np.maximum(1e-5, said)).all(), (name, quantity, error, said)
            assert (said[error < 1e-7] < 1e-5).all(), (name, quantity)


def test_samples_carry_the_error_of_an_exact_field_that_misses_its_accuracy() -> None:
    marginal, _ = rough()
    with pytest.warns(QuadratureWarning, match="of 3 miss .* the worst of 4 such computations") as said:
        missed = generate(ExactField(marginal), jax.random.key(0), 3, "euler", 2, batch_size=2)
    assert len(said) == 1
    assert missed.statistics["exact_error"].shape == (3,)
    assert (missed.statistics["exact_error"] > 1e-8).all()
    marginal = Marginal(marginal.distribution, marginal.process, marginal.prior.time_law)
    assert "exact_error" not in generate(ExactField(marginal), jax.random.key(0), 2, "euler", 2).statistics


@pytest.mark.slow
def test_many_calls_may_warn_once_of_the_worst() -> None:
    marginal, u = rough()

    def one_by_one() -> None:
        for row in u:
            marginal.field(row[None])

    with pytest.warns(QuadratureWarning) as each:
        one_by_one()
    with pytest.warns(QuadratureWarning) as together:
        in_one_warning()(one_by_one)()
    (message,) = (str(warning.message) for warning in together)
    assert f"the worst of {len(each)} such computations" in message
    errors = [str(warning.message).split("relative error ")[1].split()[0] for warning in each]
    assert message.split("relative error ")[1].split()[0] == max(errors, key=float)


def test_drawing_points_needs_no_table_of_all_points_by_all_draws() -> None:
    weights = np.array([0.0, 0.5, 0.0, *np.full(497, 0.5 / 497)])
    law = FiniteSet(np.arange(500.0)[:, None], weights)
    drawn = np.asarray(law.sample(jax.random.key(0), 40_000)).ravel()
    counts = np.bincount(drawn.astype(int), minlength=500)
    assert counts[0] == counts[2] == 0
    z = (counts - 40_000 * weights)[weights > 0] / np.sqrt(40_000 * (weights * (1 - weights))[weights > 0])
    assert abs(z.std() - 1.0) < 0.15
    assert abs(z).max() < 4.5
    large = FiniteSet(np.zeros((60_000, 1), np.float32))
    compiled = jax.jit(lambda key: large.sample(key, 4096)).lower(jax.random.key(0)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2**25  # type: ignore[union-attr]
