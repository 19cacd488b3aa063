"""Several small models of one kind at once: one program for all seeds, many updates a call, data made on the device.

What an update is, is said by :func:`geonoise_jax.training.step.make_step`, as everywhere. Small models are ruled by
what surrounds their arithmetic; here the host is asked once in a hundred updates, and all seeds share one dispatch.
Nothing is stored meanwhile: this is for models that train in seconds or minutes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from geonoise_jax import checks
from geonoise_jax.errors import UserError
from geonoise_jax.process.keys import root_key
from geonoise_jax.training.run import Run
from geonoise_jax.training.state import init_key, init_state
from geonoise_jax.training.step import make_step


class Law(Protocol):
    """Where data come from; every ``exact.Distribution`` is one."""

    def sample(self, key: Key[Array, ""], num: int) -> Float[Array, "num *event"]:
        """Draw points."""


class Models(NamedTuple):
    """Trained models, by seed.

    Attributes:
        params: averaged parameters, each array with a leading axis of seeds.
        losses: mean loss of every call's updates, by call and seed.
        steps: number of updates.
    """

    params: PyTree[Float[Array, "seeds ..."]]
    losses: Float[np.ndarray, "calls seeds"]
    steps: int

    def of(self, number: int) -> PyTree[Array]:
        """Return the parameters of one seed, by its place."""
        return jax.tree.map(lambda each: each[number], self.params)


def train_many(
    run: Run,
    law: Law,
    seeds: Sequence[int],
    *,
    updates_per_call: int = 100,
    on_call: Callable[[int, int], None] | None = None,
) -> Models:
    """Train the network of a run once for each seed, on fresh points of a law in every batch.

    A seed decides the initial parameters and everything random of its model, which does not depend on the others. Of
    the run, ``data`` gives nothing but the shape of an event, and what belongs to workdirs has no effect.

    Args:
        run: network, process, objective, optimizer, average and budget.
        law: draws the data, in model space.
        seeds: one for each model.
        updates_per_call: updates between two looks at the numbers; changes no result.
        on_call: called as ``on_call(done, num_steps)`` after each call.

    Raises:
        UserError: if there is no seed, one is twice there, points of the law have another shape than those of the run,
            or a loss, gradient or update is not finite.
    """
    checks.several("seeds", tuple(seeds), checks.integer, low=0)
    if len(set(seeds)) < len(seeds):
        raise UserError(f"seeds = {list(seeds)}: must differ")
    checks.integer("updates_per_call", updates_per_call, low=1)
    shape, num_steps = run.data.event_shape, run.budget.num_steps
    found = jax.eval_shape(lambda key: law.sample(key, 2), root_key(0)).shape[1:]
    if found != shape:
        raise UserError(f"law: its points have the shape {found}; must be that of the run's data, {shape}")
    optimizer, _ = run.chain()
    keys = jnp.stack([init_key(seed) for seed in seeds])
    roots = jnp.stack([root_key(seed) for seed in seeds])
    state = jax.jit(jax.vmap(lambda key: init_state(run.network, shape, optimizer, key)))(keys)
    call = _compiled(run, law)
    done, losses = 0, []
    while done < num_steps:
        count = min(updates_per_call, num_steps - done)
        state, finite, loss = call(state, roots, count)
        done += count
        losses.append(np.asarray(loss))
        bad = [seed for seed, good in zip(seeds, np.asarray(finite), strict=True) if not good]
        if bad:
            raise UserError(
                f"loss, gradient or update is not finite within the {count} updates up to {done}, of seeds {bad}; "
                "lower the learning rate, or look at what the law draws"
            )
        if on_call is not None:
            on_call(done, num_steps)
    return Models(state.ema_params, np.stack(losses), done)


def _compiled(run: Run, law: Law) -> Callable[[Any, Array, int], tuple[Any, Array, Array]]:
    """Return ``call(state, roots, count)``, which updates all models ``count`` times."""
    size, (optimizer, _) = run.budget.batch_size, run.chain()

    def decode(batch: Any, resident: Any, key: Key[Array, ""]) -> dict[str, Array]:  # noqa: ARG001
        return {"x": law.sample(key, size)}

    options: Any = {"accumulate": run.budget.accumulate, "log_every": run.budget.log_every}
    one = make_step(run.field(None), run.goal(), optimizer, run.average, decode, **options)
    update = jax.vmap(lambda state, root: one(state, {}, {}, root))

    @functools.partial(jax.jit, static_argnames="count", donate_argnames="state")
    def call(state: Any, roots: Key[Array, "seeds"], count: int) -> tuple[Any, Array, Array]:
        def body(state: Any, _: None) -> tuple[Any, tuple[Array, Array]]:
            state, report = update(state, roots)
            return state, (report.finite, report.loss)

        state, (finite, loss) = jax.lax.scan(body, state, None, length=count)
        return state, finite.all(axis=0), loss.mean(axis=0)

    return call
