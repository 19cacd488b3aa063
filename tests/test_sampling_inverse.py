"""Reading the noise level off an observation, denoising without knowing it, partial noise, energies as scores."""

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

from geonoise_jax.exact import FiniteSet, Gaussian, Marginal
from geonoise_jax.fields import ExactField, SumField
from geonoise_jax.process import schedules, targets
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import SCHEDULES
from geonoise_jax.process.times import Uniform
from geonoise_jax.sampling import sample
from geonoise_jax.sampling.autonomous import eqm_descent, eqm_nesterov
from geonoise_jax.sampling.inverse import denoise, energy_score
from geonoise_jax.sampling.readout import (
    check_readable,
    implicit_schedule,
    level_of_products,
    level_of_residual,
    posterior_mode,
    residual_level,
)

DIM = 64
POINTS = np.random.default_rng(0).normal(size=(6, DIM)).astype(np.float32)
DENOISER = Process(schedules.VE(), targets.Signal())
EQM = Process(schedules.Linear(), targets.Equilibrium("truncated"))
TELLING = (targets.Signal, targets.Score, targets.Equilibrium)


def readable(process: Process) -> bool:
    try:
        check_readable(process)
    except ValueError:
        return False
    return True


LEGIBLE = [
    Process(schedules.Linear(), targets.Velocity()),
    Process(schedules.Linear(), targets.Equilibrium("truncated")),
    Process(schedules.VPLinear(), targets.Score()),
    Process(schedules.VE(), targets.Signal()),
    Process(schedules.VE(), targets.VPrediction()),
    Process(schedules.UEDM(), targets.Velocity()),
]


def name(process: Process) -> str:
    return f"{type(process.schedule).__name__}-{type(process.parameterization).__name__}"


def marginal_of(process: Process, points: np.ndarray = POINTS) -> Marginal:
    law = Uniform(process.schedule.t_min, process.schedule.t_max)
    return Marginal(FiniteSet(points), process, law, accuracy=1e-3, adaptive=False)


def exact(process: Process, *, blind: bool = True) -> ExactField:
    return ExactField(marginal_of(process), blind)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Known:
    """A field that has been told its values."""

    r: Any
    process: Process = dataclasses.field(metadata={"static": True})
    blind: bool = dataclasses.field(default=True, metadata={"static": True})

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.r.shape[1:]

    def __call__(self, u: jax.Array, t: jax.Array) -> jax.Array:  # noqa: ARG002
        return self.r


def ideal(process: Process, count: int, length: float) -> tuple[Any, Any, Any, Any]:
    """Draw t, x, u, r with |eps|^2 = D exactly, eps orthogonal to x, and |x|^2 = length^2 D."""
    schedule = process.schedule
    draws = np.random.default_rng(1).normal(size=(2, count, DIM))
    eps, x = draws / np.linalg.norm(draws, axis=-1, keepdims=True)
    x -= np.sum(x * eps, axis=-1, keepdims=True) * eps
    x *= length * math.sqrt(DIM) / np.linalg.norm(x, axis=-1, keepdims=True)
    low, high = (float(schedule.eta(jnp.asarray(t))) for t in (schedule.t_min, schedule.t_max))
    eta = np.linspace(low, high, count + 2)
    t = schedule.t_of_eta(jnp.asarray(eta[1:-1]))
    x, eps = jnp.asarray(x), jnp.asarray(math.sqrt(DIM) * eps)
    return t, x, process.corrupt(x, eps, t), process.target(x, eps, t)


@pytest.mark.parametrize("process", LEGIBLE, ids=name)
def test_the_level_of_true_noise_is_found(process: Process, x64: None) -> None:
    """Also for data longer than the noise, where other levels would explain its length as well."""
    short, long = ideal(process, 12, 0.3), ideal(process, 12, 3.0)
    t, x, u, r = (jnp.concatenate(pair) for pair in zip(short, long, strict=True))
    level = level_of_residual(process, u, r)
    np.testing.assert_allclose(level, t, rtol=1e-7)
    np.testing.assert_allclose(denoise(Known(r, process), u), x, rtol=0, atol=1e-4)


@pytest.mark.parametrize("process", LEGIBLE, ids=name)
def test_inner_products_tell_the_same_level(process: Process, x64: None) -> None:
    _, _, u, r = ideal(process, 12, 1.0)
    products = jnp.stack([(left * right).mean(-1) for left, right in ((u, u), (u, r), (r, r))])
    level = level_of_products(process, products.reshape(3, 4, 3))
    np.testing.assert_allclose(level.ravel(), level_of_residual(process, u, r), rtol=1e-5)
    unknown = level_of_products(process, products.at[0, 3].set(jnp.nan))
    np.testing.assert_array_equal(np.isnan(unknown), np.arange(12) == 3)


def test_the_level_is_found_in_float32() -> None:
    for process in (DENOISER, EQM):
        t, _, u, r = (jnp.asarray(value, jnp.float32) for value in ideal(process, 12, 1.0))
        np.testing.assert_allclose(level_of_residual(process, u, r), t, rtol=1e-3)


@pytest.mark.parametrize("process", [DENOISER, Process(schedules.VE(), targets.Score())], ids=name)
def test_residuals_beyond_the_range_give_its_ends(process: Process) -> None:
    u = jnp.ones((2, DIM))
    eps = jnp.asarray([1e-6, 1e6])[:, None] * jnp.ones((2, DIM))
    r = u - eps if process == DENOISER else -1.0 / eps
    np.testing.assert_allclose(level_of_residual(process, u, r), [0.002, 80.0], rtol=1e-6)


def test_targets_that_do_not_tell_the_level_are_refused() -> None:
    # The noise itself always, and v-prediction where a^2 + b^2 = 1.
    assert not any(readable(Process(schedule(), targets.Noise())) for schedule in SCHEDULES)
    for circular in (schedules.VPLinear(), schedules.Cosine(), schedules.UEDM()):
        assert not readable(Process(circular, targets.VPrediction()))
    for schedule, target in itertools.product((schedules.Linear, schedules.VE), TELLING):
        assert readable(Process(schedule(), target()))
    field = Known(jnp.ones((1, 2)), Process(schedules.Linear(), targets.Noise()))
    for read in (residual_level, denoise):
        with pytest.raises(ValueError, match=r"Noise\(\).*cannot be read off a residual; give t"):
            read(field, jnp.ones((1, 2)))


def test_conditional_fields_cannot_be_read() -> None:
    field = Known(jnp.ones((1, 2)), DENOISER, blind=False)
    for read in (residual_level, denoise):
        with pytest.raises(ValueError, match="field.blind = False: must be True"):
            read(field, jnp.ones((1, 2)))


@pytest.mark.parametrize("process", [DENOISER, pytest.param(EQM, marks=pytest.mark.slow)], ids=name)
def test_readout_of_exact_fields_is_as_sharp_as_theory_allows(process: Process) -> None:
    """The relative error has the standard deviation 1 / sqrt(2 D): that of the length of the noise."""
    count = 1024
    t = jnp.geomspace(0.01, 1.0 if process == DENOISER else 0.1, count)
    x = jnp.asarray(POINTS)[jnp.arange(count) % len(POINTS)]
    u = process.corrupt(x, jax.random.normal(jax.random.key(0), x.shape), t)
    field = exact(process)
    read = jax.jit(lambda field, u: (residual_level(field, u), posterior_mode(field.marginal, u), denoise(field, u)))
    residual, mode, estimate = read(field, u)
    # The residual uses the length of the noise; the posterior sees the signal lost too, where a depends on t.
    lost = 0.0 if process == DENOISER else float(np.mean(np.sum(POINTS**2, axis=1)))
    sd = [1.0 / math.sqrt(2.0 * DIM), 1.0 / math.sqrt(2.0 * DIM + lost)]
    for level, expected in zip((residual, mode), sd, strict=True):
        error = np.asarray(level / t) - 1.0
        assert abs(error.mean()) < 4.0 * expected / math.sqrt(count) + 1.0 / DIM
        assert error.std() == pytest.approx(expected, rel=4.0 / math.sqrt(2.0 * count) + 0.01)
    assert np.corrcoef(residual / t, mode / t)[0, 1] == pytest.approx(sd[1] / sd[0], abs=0.05)
    # The observation is denoised without knowing t.
    np.testing.assert_allclose(estimate, x, atol=1e-2)


def test_implicit_schedule_of_a_trajectory() -> None:
    """Along a path of known levels the levels read are these, to the accuracy of 16 samples."""
    times = np.geomspace(40.0, 0.01, 8)
    x, eps = jnp.asarray(POINTS)[jnp.arange(16) % len(POINTS)], jax.random.normal(jax.random.key(0), (16, DIM))
    path = jnp.stack([DENOISER.corrupt(x, eps, time) for time in times])
    field = exact(DENOISER)
    both = jax.jit(lambda field, path: (implicit_schedule(field, path), implicit_schedule(field.marginal, path)))
    for level in both(field, path):
        assert level.shape == (8, 16)
        np.testing.assert_allclose(np.mean(level, axis=1) / times, 1.0, atol=0.1)
    # Where x is known for certain, a path with one noise keeps the reading's error.
    ratio = np.asarray(both(field, path)[0])[4:] / times[4:, None]
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:1], ratio.shape), rtol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_descent_saves_the_implicit_schedule(momentum: float) -> None:
    """It is what one read-out tells of each point at which the field was evaluated, until the sample stops."""
    points, levels, steps = 0.5 * POINTS, jnp.linspace(0.05, 0.9, 6), 8
    field = ExactField(marginal_of(EQM, points), blind=True)
    start = EQM.corrupt(jnp.asarray(points), jax.random.normal(jax.random.key(0), points.shape), levels)
    run = jax.jit(
        functools.partial(eqm_nesterov, step_size=0.03, momentum=momentum, tolerance=0.4), static_argnames="max_steps"
    )
    saved = run(field, start, max_steps=steps).statistics
    after = [start, start, *(run(field, start, max_steps=count).u for count in range(1, steps))]
    path = jnp.stack([now + momentum * (now - before) for before, now in itertools.pairwise(after)])
    want = np.asarray(implicit_schedule(field, path)).T
    seen = np.arange(steps) < np.asarray(saved["evaluations"])[:, None]
    assert 0.2 < seen.mean() < 0.9
    np.testing.assert_allclose(saved["noise_level"], np.where(seen, want, np.nan), rtol=1e-3)
    np.testing.assert_allclose(saved["noise_level"][:, 0], levels, rtol=0.15)
    assert (np.nanmin(saved["noise_level"], axis=1) < 0.7 * levels).all()


def test_fields_that_do_not_tell_their_level_are_descended_without() -> None:
    process = Process(schedules.VE(), targets.Noise())
    outcome = eqm_descent(Known(jnp.ones((1, 2)), process), jnp.ones((1, 2)), max_steps=2)
    assert "noise_level" not in outcome.statistics


def test_denoise_at_a_known_level_is_the_denoiser() -> None:
    for process in (DENOISER, EQM, Process(schedules.Linear(), targets.Noise())):
        marginal = Marginal(Gaussian(jnp.zeros(3), jnp.ones(3)), process, Uniform(0.01, 0.9))
        field = ExactField(marginal, blind=False)
        u, t = jax.random.normal(jax.random.key(0), (5, 3)), jnp.linspace(0.1, 0.8, 5)
        np.testing.assert_allclose(denoise(field, u, t), marginal.denoiser(u, t), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(denoise(field, u, 0.3), marginal.denoiser(u, 0.3), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("sampler", "process"), [("bddm", DENOISER), pytest.param("eqm_descent", EQM, marks=pytest.mark.slow)]
)
def test_sampling_from_a_partially_noised_input_restores_it(sampler: str, process: Process) -> None:
    """A little noise leaves no doubt about the datum; autonomous samplers need not be told how little."""
    x = POINTS[np.arange(24) % len(POINTS)]
    options: dict[str, Any] = {"step_size": 0.1} if sampler == "bddm" else {"step_size": 0.01, "max_steps": 300}
    restored = sample(exact(process), jax.random.key(0), 24, sampler, x=x, start_time=0.3, **options)
    np.testing.assert_allclose(restored, x, atol=1e-2)


@pytest.mark.slow
def test_energy_ranks_what_is_out_of_distribution() -> None:
    marginal = marginal_of(EQM)
    inside = jnp.asarray(POINTS) + 0.02
    outside = jax.random.normal(jax.random.key(0), (8, DIM)) * np.std(POINTS)
    scores = energy_score(marginal, jnp.concatenate([inside, outside]))
    assert float(scores[: len(inside)].max()) < float(scores[len(inside) :].min())


class Quadratic:
    """An energy network stands behind the same interface, with the level it may need."""

    def energy(self, u: jax.Array, t: jax.Array | None = None) -> jax.Array:
        return (u**2).sum(-1) / (1.0 if t is None else t)


def test_energy_score_hands_on_the_level() -> None:
    u = jnp.ones((2, 3))
    np.testing.assert_allclose(energy_score(Quadratic(), u), 3.0)
    np.testing.assert_allclose(energy_score(Quadratic(), u, 0.5), 6.0)
    np.testing.assert_allclose(energy_score(Quadratic(), u, jnp.asarray([0.5, 1.0])), [6.0, 3.0])
    with pytest.raises(ValueError, match="model = Known: must have a method energy"):
        energy_score(Known(u, DENOISER), u)  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_sum_of_two_energies_is_descended_to_what_both_allow() -> None:
    """Two sets of data share one point: most starts near it end there under the sum of both fields."""
    one, two = (ExactField(marginal_of(EQM, POINTS[part])) for part in (slice(0, 3), slice(2, 5)))
    field = SumField((one, two), jnp.asarray([0.5, 0.5]))
    shared = POINTS[2]
    u = jnp.asarray(shared)[None] + 0.5 * jax.random.normal(jax.random.key(0), (16, DIM))
    # Beside them a datum that one of the two has and the other has not.
    u = jnp.concatenate([u, jnp.asarray(POINTS[:1])])
    run = jax.jit(functools.partial(eqm_descent, step_size=0.01, max_steps=300, tolerance=1e-4))
    outcome = run(field, u)
    assert outcome.statistics["converged"][:16].all()
    np.testing.assert_allclose(outcome.u[:16], np.broadcast_to(shared, (16, DIM)), atol=1e-3)
    # One alone keeps that datum; their sum leaves it.
    assert float(run(one, u).statistics["evaluations"][16]) == 1.0
    assert float(outcome.statistics["evaluations"][16]) > 1.0
