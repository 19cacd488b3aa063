"""Many small models at once: each is what it would be alone, whatever it is trained with and however it is cut."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from geonoise_jax.data.arrays import Arrays
from geonoise_jax.exact import Gaussian, Marginal
from geonoise_jax.nets.mlp import ResidualMLP
from geonoise_jax.process.keys import root_key
from geonoise_jax.training.many import train_many
from geonoise_jax.training.run import Budget, Run
from geonoise_jax.training.state import init_key, init_state
from geonoise_jax.training.step import make_step

LAW = Gaussian(jnp.array([0.5, -1.0, 2.0]), jnp.array([1.0, 0.25, 0.5]))


def run(steps: int = 12, rate: float = 1e-2, **changes: Any) -> Run:
    events = np.zeros((16, 3), np.float32)
    network = ResidualMLP(width=8, depth=1, conditional=False)
    budget = Budget(num_steps=steps, batch_size=16)
    return Run(network=network, data=Arrays(events=events), budget=budget, optimizer=optax.adam(rate), **changes)


def alone(of: Run, seed: int) -> Any:
    """The averaged parameters of one model, update by update."""
    optimizer, _ = of.chain()
    state = init_state(of.network, (3,), optimizer, init_key(seed))
    options: Any = {"accumulate": 1, "log_every": 100}

    def decode(batch: Any, resident: Any, key: Any) -> dict[str, Any]:
        return {"x": LAW.sample(key, of.budget.batch_size)}

    step = jax.jit(make_step(of.field(None), of.goal(), optimizer, of.average, decode, **options))
    for _ in range(of.budget.num_steps):
        state, _ = step(state, {}, {}, root_key(seed))
    return state.ema_params


def close(one: Any, other: Any, rtol: float) -> None:
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(left, right, rtol=rtol, atol=rtol)


@pytest.mark.usefixtures("x64")
def test_each_model_is_the_one_that_it_is_alone() -> None:
    of = run()
    found = train_many(of, LAW, (3, 5), updates_per_call=5)
    assert found.losses.shape == (3, 2)
    assert found.steps == 12
    for number, seed in enumerate((3, 5)):
        close(found.of(number), alone(of, seed), 1e-5)
    different = [bool((left[0] == left[1]).all()) for left in jax.tree.leaves(found.params)]
    assert not all(different)


def test_calls_change_nothing() -> None:
    seen: list[tuple[int, int]] = []
    often = train_many(run(), LAW, (1, 2), updates_per_call=5, on_call=lambda *at: seen.append(at))
    close(train_many(run(), LAW, (1, 2)).params, often.params, 1e-6)
    assert seen == [(5, 12), (10, 12), (12, 12)]


def test_it_comes_near_the_loss_that_the_exact_field_has() -> None:
    of = run(400, 1e-2)
    losses = train_many(of, LAW, (0,)).losses[:, 0]
    goal = of.goal()
    draws = goal.draw(jax.random.key(1), LAW.sample(jax.random.key(2), 4000), None)
    field = Marginal(LAW, of.process, goal.time_law).field(of.process.corrupt(draws.x, draws.eps, draws.t))
    least = float(jnp.mean((field - of.process.target(draws.x, draws.eps, draws.t)) ** 2))
    assert 0.95 * least < losses[-1] < 1.1 * least < 1.2 * least < losses[0]


def test_what_is_not_finite_is_told_by_seed() -> None:
    with pytest.raises(ValueError, match=r"not finite within the 12 updates up to 12, of seeds \[0, 7\]; lower"):
        train_many(run(rate=1e30), LAW, (0, 7))


@pytest.mark.parametrize(
    ("seeds", "message"),
    [((), "seeds"), ((1, 1), r"seeds = \[1, 1\]: must differ"), ((-1,), "seeds = -1: must be an integer >= 0")],
)
def test_seeds_are_checked(seeds: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_many(run(), LAW, seeds)


def test_a_law_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"law: its points have the shape \(2,\); must be .* \(3,\)"):
        train_many(run(), Gaussian(jnp.zeros(2), jnp.ones(2)), (0,))
