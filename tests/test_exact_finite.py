"""Finite sets: the fast route (matrix products, samples, windows, blocks, devices) changes nothing but rounding."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from geonoise_jax.exact import FiniteSet, Marginal, delivery, projection
from geonoise_jax.process import schedules, targets, times
from geonoise_jax.process.process import Process

LINEAR = Process(schedules.Linear(), targets.Velocity())
UNIFORM = times.Uniform(1e-3, 0.999)
COUNT, DIM = 2500, 12


def dataset(count: int = COUNT, dim: int = DIM, seed: int = 0) -> np.ndarray:
    """Points near a curved surface."""
    rng = np.random.default_rng(seed)
    return np.tanh(np.tanh(rng.normal(size=(count, 4))) @ rng.normal(size=(4, dim)))


def observations(points: np.ndarray, t: np.ndarray, seed: int = 1) -> np.ndarray:
    """One observation of a random point at each time."""
    rng = np.random.default_rng(seed)
    x = points[rng.integers(0, len(points), len(t))]
    return (1 - t)[:, None] * x + t[:, None] * rng.normal(size=x.shape)


def field(law: FiniteSet, u: np.ndarray) -> np.ndarray:
    return np.asarray(Marginal(law, LINEAR, UNIFORM, accuracy=1e-7).field(jnp.asarray(u)))


TIMES = np.array([0.002, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99])


@pytest.mark.usefixtures("x64")
def test_any_route_gives_the_same_field() -> None:
    points = dataset()
    u = observations(points, TIMES)
    weights = np.random.default_rng(3).dirichlet(np.ones(COUNT))
    fast = FiniteSet(points, weights)
    expected = field(fast, u)
    np.testing.assert_allclose(field(FiniteSet(points, weights, num_near=COUNT), u), expected, rtol=1e-8, atol=1e-8)
    order = np.random.default_rng(4).permutation(COUNT)
    np.testing.assert_allclose(field(FiniteSet(points[order], weights[order]), u), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.usefixtures("x64")
def test_blocks_of_queries_change_nothing() -> None:
    points = dataset()
    u = jnp.asarray(observations(points, TIMES))
    small = FiniteSet(points, working_memory=4 * 8 * (4 * COUNT + 3 * 32 * DIM))
    assert small.query_block(np.float64) == 4
    whole, blocks = (Marginal(law, LINEAR, UNIFORM).denoiser(u, TIMES) for law in (FiniteSet(points), small))
    np.testing.assert_allclose(blocks, whole, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_eight_devices_equal_one() -> None:
    points = dataset()[:2001]
    u = observations(points, TIMES)
    mesh = Mesh(np.asarray(jax.devices()).reshape(2, 4), ("queries", "data"))
    one = FiniteSet(points)
    eight = one.shard(mesh, "data", "queries")
    assert {shard.data.shape for shard in eight.rows.addressable_shards} == {(501, DIM)}
    np.testing.assert_array_equal(eight.points, points)
    np.testing.assert_allclose(field(eight, u), field(one, u), rtol=1e-8, atol=1e-8)


@pytest.mark.usefixtures("x64")
def test_queries_may_be_replicated() -> None:
    points = dataset()[:2001]
    one, u = FiniteSet(points), jnp.asarray(observations(points, TIMES))
    eight = one.shard(Mesh(np.asarray(jax.devices()), ("data",)), "data")
    a, b, _, _ = (jnp.asarray(x) for x in LINEAR.schedule.coeffs(jnp.asarray(TIMES)))
    np.testing.assert_allclose(eight.log_density(u, a, b), one.log_density(u, a, b), rtol=1e-12)
    np.testing.assert_allclose(eight.denoiser(u, a, b), one.denoiser(u, a, b), rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_a_point_that_the_sample_misses_is_found() -> None:
    """An outlier that dominates at t = 0.5 by hundreds of nats although other points are nearer to u."""
    rng = np.random.default_rng(5)
    points = 0.01 * rng.normal(size=(5000, DIM))
    points[1777] = 30.0
    u = jnp.asarray([[14.0] * DIM])
    far = FiniteSet(points, num_near=1)
    direct = FiniteSet(points, num_near=5000)
    for b in (0.02, 0.3):
        np.testing.assert_allclose(far.log_density(u, 0.5, b), direct.log_density(u, 0.5, b), rtol=1e-10)
        np.testing.assert_allclose(far.denoiser(u, 0.5, b), direct.denoiser(u, 0.5, b), rtol=1e-8)


def test_float32_is_accurate_near_and_far_from_the_data() -> None:
    rng = np.random.default_rng(6)
    points = rng.uniform(-1, 1, size=(300, 784)).astype(np.float32)
    b = np.geomspace(1e-3, 0.9, 8).astype(np.float32)
    u = observations(points, b).astype(np.float32)
    law = UNIFORM if b[0] >= UNIFORM.lo else times.Uniform(float(b[0]), 0.999)
    rough = np.asarray(Marginal(FiniteSet(points), LINEAR, law).field(jnp.asarray(u)))
    with jax.enable_x64(True):
        exact = np.asarray(
            Marginal(FiniteSet(points.astype(np.float64)), LINEAR, law).field(jnp.asarray(u, jnp.float64))
        )
    error = np.abs(rough - exact).max(axis=1) / np.abs(exact).max(axis=1)
    assert error.max() < 1e-5


@pytest.mark.parametrize("size", [40, 2048, 3001])
def test_largest_finds_the_largest(size: int) -> None:
    values = jnp.asarray(np.random.default_rng(size).normal(size=(3, size)), jnp.float32)
    found = np.asarray(projection._largest(values, 32))
    expected = np.argsort(-np.asarray(values), axis=1)[:, :32]
    np.testing.assert_array_equal(np.sort(found, axis=1), np.sort(expected, axis=1))


def test_duplicates_add_their_weights() -> None:
    points = dataset(6)
    doubled = FiniteSet(np.concatenate([points, points[:2]]))
    weighted = FiniteSet(points, np.array([2, 2, 1, 1, 1, 1]) / 8)
    u = jnp.asarray(observations(points, np.array([0.01, 0.3])), jnp.float32)
    np.testing.assert_allclose(doubled.denoiser(u, 0.9, 0.3), weighted.denoiser(u, 0.9, 0.3), rtol=1e-5)


def test_shard_refuses_an_unknown_axis() -> None:
    mesh = Mesh(np.asarray(jax.devices()), ("data",))
    with pytest.raises(ValueError, match="axis = 'points'"):
        FiniteSet(dataset(16)).shard(mesh, "points")


def test_a_long_batch_says_how_far_it_is(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "_PROGRESS_SECONDS", -1.0)
    law = FiniteSet(np.eye(4), working_memory=2_000)
    block = law.query_block(np.float32)
    with caplog.at_level("INFO", logger="geonoise_jax"):
        Marginal(law, LINEAR, UNIFORM).field(jnp.ones((2 * block + 1, 4)))
    assert caplog.messages == [f"exact field: block {number} of 3" for number in (1, 2, 3)]
