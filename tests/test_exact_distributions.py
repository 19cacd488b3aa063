"""Laws of the data: samples agree with densities, limits agree with one another, bad input is refused."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.exact import Circles, FiniteSet, Gaussian, Marginal, Mixture, QuadratureWarning, Subspace
from geonoise_jax.process import schedules, targets, times
from geonoise_jax.process.process import Process
from tests.exact_laws import DIM, frame, laws, queries

LINEAR = Process(schedules.Linear(), targets.Velocity())
UNIFORM = times.Uniform(1e-3, 0.999)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["FiniteSet", "Gaussian", "Mixture", "Subspace", "Circles"])
def test_samples_follow_the_density_and_the_denoiser(name: str) -> None:
    """E[x] = E[D_t(u)], E|x|^2 = E[x . D_t(u)] + E|x - D|^2, and the density integrates to one over its own samples."""
    law, a, b = laws()[name], 0.8, 0.6
    key_x, key_e, key_v = jax.random.split(jax.random.key(0), 3)
    x = law.sample(key_x, 40_000)
    assert x.shape == (40_000, DIM)
    u = a * x + b * jax.random.normal(key_e, x.shape)
    denoised = law.denoiser(u, a, b)
    np.testing.assert_allclose(denoised.mean(0), x.mean(0), atol=0.03)
    np.testing.assert_allclose((denoised * x).sum(-1).mean(), (denoised**2).sum(-1).mean(), atol=0.05)
    # Importance weights against a wide Gaussian estimate the integral of the density.
    spread = 2.5
    v = spread * jax.random.normal(key_v, x.shape)
    log_q = -0.5 * (v**2).sum(-1) / spread**2 - DIM * np.log(spread * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(jnp.exp(law.log_density(v, a, b) - log_q).mean(), 1.0, atol=0.05)


@pytest.mark.usefixtures("x64")
def test_laws_agree_in_their_limits() -> None:
    u, x = jnp.asarray(queries()), queries(1, seed=7)
    limits = {
        "point": FiniteSet(x),
        "narrow Gaussian": Gaussian(x[0], 1e-14),
        "narrow mixture": Mixture(np.repeat(x, 2, axis=0), 1e-14 * np.ones((2, DIM)), [0.25, 0.75]),
    }
    fields = [Marginal(law, LINEAR, UNIFORM).field(u) for law in limits.values()]
    np.testing.assert_allclose(fields[1], fields[0], rtol=1e-7)
    np.testing.assert_allclose(fields[2], fields[0], rtol=1e-7)
    wide = Gaussian(np.zeros(DIM), 0.64 * frame() @ frame().T)
    subspace = Subspace(frame(), 0.8)
    np.testing.assert_allclose(subspace.log_density(u, 0.7, 0.3), wide.log_density(u, 0.7, 0.3), rtol=1e-12)
    np.testing.assert_allclose(subspace.denoiser(u, 0.7, 0.3), wide.denoiser(u, 0.7, 0.3), atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_a_circle_is_the_limit_of_many_points_on_it() -> None:
    u = jnp.asarray(queries())
    angle = 2 * np.pi * np.arange(64) / 64
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1) @ frame().T
    circle, many = Circles([1.0], frame=frame()), FiniteSet(points)
    np.testing.assert_allclose(circle.log_density(u, 0.7, 0.5), many.log_density(u, 0.7, 0.5), rtol=1e-12)
    np.testing.assert_allclose(circle.denoiser(u, 0.7, 0.5), many.denoiser(u, 0.7, 0.5), rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_the_centre_of_a_circle_is_regular() -> None:
    marginal = Marginal(Circles([1.0]), LINEAR, UNIFORM)
    u, v = jnp.zeros((1, 2)), jnp.asarray([[1.0, 0.0]])
    np.testing.assert_array_equal(marginal.field(u), 0.0)
    h = 1e-5
    np.testing.assert_allclose(marginal.energy_hvp(u, v), marginal.energy_grad(h * v) / h, rtol=1e-5)


def test_events_keep_their_shape_and_their_dtype() -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(5, 2, 3, 1)).astype(np.float32)
    u = jnp.asarray(rng.normal(size=(2, 2, 3, 1)), jnp.float32)
    law, flat_law = FiniteSet(images), FiniteSet(images.reshape(5, -1))
    marginal, flat = Marginal(law, LINEAR, UNIFORM), Marginal(flat_law, LINEAR, UNIFORM)
    assert marginal.event_shape == (2, 3, 1)
    parts = marginal.decompose(u)
    for vectors in (*parts[:4], marginal.denoiser(u, 0.5)):
        assert vectors.shape == u.shape
        assert vectors.dtype == jnp.float32
    np.testing.assert_array_equal(parts.field.reshape(2, -1), flat.decompose(u.reshape(2, -1)).field)
    mixture = Mixture(images, np.abs(images))
    assert mixture.denoiser(u, 0.5, 0.5).shape == mixture.sample(jax.random.key(0), 2).shape == u.shape


def test_marginals_refuse_bad_input() -> None:
    marginal = Marginal(laws()["Gaussian"], LINEAR, UNIFORM)
    with pytest.raises(ValueError, match=r"u.shape = \[4, 2\]: must be \[B, 3\], events of this Gaussian"):
        marginal.field(jnp.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"t = .*must lie within \[t_min, t_max\] = \[0.001, 0.999\]"):
        marginal.conditional_field(jnp.zeros((4, 3)), 1.0)
    with pytest.raises(ValueError, match="must lie within the schedule's"):
        Marginal(laws()["Gaussian"], LINEAR, times.Uniform(0.0, 0.999))
    with pytest.raises(ValueError, match="accuracy = 2"):
        Marginal(laws()["Gaussian"], LINEAR, UNIFORM, accuracy=2.0)
    with pytest.raises(ValueError, match="loss_weight"):
        Marginal(laws()["Gaussian"], LINEAR, UNIFORM, lambda t: 0.0 * t)
    with pytest.raises(ValueError, match="Marginal.distribution = .*: must be a Distribution"):
        Marginal(LINEAR, LINEAR, UNIFORM)  # type: ignore[arg-type]
    with pytest.raises(AttributeError, match="immutable"):
        marginal.accuracy = 0.1


def test_an_infinite_mean_gain_is_refused_with_advice() -> None:
    process = Process(schedules.Linear(t_max=1.0), targets.Velocity())
    u = jnp.zeros((1, 3))
    with pytest.raises(ValueError, match=r"a = 0 at t = 1.*choose Uniform.hi < 1"):
        Marginal(laws()["Gaussian"], process, times.Uniform(1e-3, 1.0)).decompose(u)
    vanishing = Marginal(laws()["Gaussian"], process, times.LogitNormal(lo=1e-3, hi=1.0))
    assert bool(jnp.isfinite(vanishing.decompose(u).gain).all())
    assert bool(jnp.isfinite(Marginal(laws()["Gaussian"], process, times.Uniform(1e-3, 1.0)).field(u)).all())


@pytest.mark.usefixtures("x64")
def test_a_divergent_density_is_warned_of() -> None:
    marginal = Marginal(
        laws()["FiniteSet"], Process(schedules.Linear(t_min=0.0), targets.Velocity()), times.Uniform(0.0, 0.999)
    )
    data = laws()["FiniteSet"]
    assert isinstance(data, FiniteSet)
    datum = data.rows[:1]
    with pytest.warns(QuadratureWarning, match="estimated relative error"):
        marginal.posterior(datum)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gaussian([0.0, np.nan], 1.0), "1 entries are not finite"),
        (lambda: Gaussian([0.0, 0.0], [1.0, -1.0]), "the smallest variance is .*; none must be negative"),
        (lambda: Gaussian([0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]]), "symmetric"),
        (lambda: Gaussian([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]), "the smallest variance is .*; none must be negative"),
        (lambda: Gaussian([0.0, 0.0], [1.0, 1.0, 1.0]), "must be .*variances"),
        (lambda: Mixture([[0.0], [1.0]], [[1.0], [1.0]], [0.5, 0.6]), "the sum is 1.1; must be one"),
        (lambda: Mixture([[0.0], [1.0]], [[1.0], [1.0]], [1.5, -0.5]), "none must be negative"),
        (lambda: Mixture([[0.0], [1.0]], [[1.0], [1.0]], [1.0]), r"must be \[2\]"),
        (lambda: Subspace([[1.0], [1.0]], 1.0), "orthonormal"),
        (lambda: Subspace(np.eye(2), -1.0), "must be positive"),
        (lambda: Circles([-1.0]), "none must be negative"),
        (lambda: Circles([1.0], frame=np.eye(3)), r"must be \[D, 2\]"),
        (lambda: FiniteSet(np.zeros((0, 3))), "must not be empty"),
        (lambda: FiniteSet([[np.inf, 0.0]]), "not finite; all must be numbers"),
        (lambda: FiniteSet(np.zeros(3)), "at least 2 axes"),
        (lambda: FiniteSet([["a"]]), r"FiniteSet.points = .*: must be an array of real numbers"),
        (lambda: FiniteSet(np.zeros((2, 3)), num_near=0), "FiniteSet.num_near = 0: must be an integer >= 1"),
        (lambda: FiniteSet(np.zeros((1000, 30)), working_memory=1000), "1000 points of 30 entries needs"),
    ],
)
def test_laws_refuse_bad_input(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
