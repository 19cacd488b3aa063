"""Queries in turns: what a query is compared with does not depend on how many others there are."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.exact import FiniteSet, Marginal
from geonoise_jax.exact.projection import Projection
from geonoise_jax.exact.turns import in_turns
from geonoise_jax.process.process import Process
from geonoise_jax.process.schedules import Linear
from geonoise_jax.process.targets import Velocity
from geonoise_jax.process.times import Uniform

PROCESS, LAW = Process(Linear(), Velocity()), Uniform(1e-3, 0.999)
# Fewer than a turn, a turn, whole turns, turns of another size, a number that no turn divides.
NUMBERS = (1, 8, 30, 17)


@pytest.fixture
def marginal(x64: None) -> Marginal:
    points = np.random.default_rng(0).normal(size=(300, 12))
    return Marginal(FiniteSet(points, num_near=8), PROCESS, LAW)


def _queries(num: int) -> jnp.ndarray:
    rng = np.random.default_rng(1)
    # From one point to where all count: they need different numbers of levels.
    t = np.geomspace(0.01, 0.98, 30)[:num, None]
    return jnp.asarray((1 - t) * rng.normal(size=(num, 12)) + t * rng.normal(size=(num, 12)))


@pytest.mark.parametrize("num", NUMBERS[2:])
def test_a_query_has_the_field_that_it_has_alone(marginal: Marginal, num: int) -> None:
    u = _queries(num)
    alone = jnp.concatenate([marginal.field(u[i : i + 1]) for i in range(num)])
    together = marginal.field(u)
    assert float(jnp.abs(together - alone).max() / jnp.abs(alone).max()) < 1e-12


@pytest.mark.parametrize("num", NUMBERS)
def test_rows_keep_their_order_and_go_with_their_own_products(marginal: Marginal, num: int) -> None:
    projection = marginal.distribution.project(_queries(num), 1.0)
    number = jnp.arange(float(num))

    def both(few: Projection, rows: jnp.ndarray) -> tuple[jnp.ndarray, jnp.ndarray]:
        assert few.far is not None
        return rows, few.far.product.sum((-2, -1)) + few.centre2[:, 0]

    found, sums = in_turns(both, projection, number)
    np.testing.assert_array_equal(found, number)
    np.testing.assert_array_equal(sums, both(projection, number)[1])


def test_a_query_of_many_levels_costs_its_own_turn_alone(marginal: Marginal) -> None:
    projection = marginal.distribution.project(_queries(24), 1.0)
    many = jnp.arange(24) == 9
    found = in_turns(lambda _, rows: jnp.full(len(rows), rows.any()), projection, many)
    assert found.sum() == 8
    assert bool(found[8:16].all())


def test_derivatives_pass_through_turns(marginal: Marginal) -> None:
    u = _queries(24)
    alone = jnp.stack([jax.grad(lambda x: marginal.log_density(x[None])[0])(x) for x in u[:3]])
    together = jax.grad(lambda u: marginal.log_density(u).sum())(u)[:3]
    np.testing.assert_allclose(together, alone, rtol=1e-9, atol=1e-12)
