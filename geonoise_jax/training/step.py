"""One training step: a pure function of (state, batch, root key)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

from geonoise_jax.fields import NetworkField
from geonoise_jax.training import ema
from geonoise_jax.training.losses import Draws, Objective
from geonoise_jax.training.state import TrainState, with_types_of


class StepReport(NamedTuple):
    """What the host learns of a step.

    Attributes:
        finite: whether loss, gradient and update are all finite.
        loss: loss of this step.
        window: means over the steps since the last logged one.
    """

    finite: Array
    loss: Float[Array, ""]
    window: dict[str, Float[Array, ""]]


def make_step(
    field: NetworkField,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    average: ema.EMA,
    decode: Callable[..., dict[str, Array]],
    *,
    accumulate: int,
    log_every: int,
    posthoc: Sequence[ema.EMA] = (),
    unroll: bool = False,
) -> Callable[[TrainState, dict[str, Array], dict[str, Array], Key[Array, ""]], tuple[TrainState, StepReport]]:
    """Return ``step(state, batch, resident, root) -> (state, report)``.

    All randomness of step s comes from ``fold_in(root, s)``. Noise and noise levels are drawn for the whole batch, so
    that neither the number of devices nor the number of micro-batches changes them.

    Args:
        field: the network as a Field; its parameters are replaced by those of the state.
        objective: what is drawn and minimised.
        optimizer: optax chain.
        average: moving average of the parameters.
        decode: ``Pipeline.decode``.
        accumulate: number of micro-batches over which the gradient of one batch is summed.
        log_every: number of steps after which the running means start anew.
        posthoc: further moving averages, those of ``TrainState.posthoc``.
        unroll: take micro-batches without a loop, in which XLA's CPU backend runs the weight gradient of a convolution
            some 50 times slower.
    """

    def step(
        state: TrainState, batch: dict[str, Array], resident: dict[str, Array], root: Key[Array, ""]
    ) -> tuple[TrainState, StepReport]:
        key_data, key_draw, key_dropout = jax.random.split(jax.random.fold_in(root, state.step), 3)
        data = decode(batch, resident, key_data)
        draws = objective.draw(key_draw, data["x"], data.get("labels"))._replace(augment=data.get("augment"))

        def loss(params: PyTree[Array], part: Draws, key: Key[Array, ""]) -> Float[Array, ""]:
            return objective.loss(dataclasses.replace(field, params=params), part, key)

        value, grads = _accumulated(
            jax.value_and_grad(loss), state.params, draws, key_dropout, accumulate, unroll=unroll
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        done = state.step + 1
        norms = {"grad_norm": optax.global_norm(grads), "update_norm": optax.global_norm(updates)}
        window = _window(state, log_every, loss=value, **norms)
        averages = [ema.update(rule, old, params, done) for rule, old in zip(posthoc, state.posthoc, strict=True)]
        averaged = ema.update(average, state.ema_params, params, done)
        new = TrainState(done, params, averaged, opt_state, window, tuple(averages))
        finite = jnp.isfinite(value + norms["grad_norm"] + norms["update_norm"])
        return with_types_of(state, new), StepReport(finite, value, window.compute())

    return step


def _window(state: TrainState, log_every: int, **values: Float[Array, ""]) -> Any:
    fresh = state.step % log_every == 0
    old = jax.tree.map(lambda value: jnp.where(fresh, 0, value), state.window)
    return old.merge(type(state.window).single_from_model_output(**values))


def _accumulated(
    value_and_grad: Callable[..., tuple[Float[Array, ""], PyTree[Array]]],
    params: PyTree[Array],
    draws: Draws,
    key: Key[Array, ""],
    parts: int,
    *,
    unroll: bool,
) -> tuple[Float[Array, ""], PyTree[Array]]:
    """Mean loss and gradient over ``parts`` micro-batches."""
    if parts == 1:
        return value_and_grad(params, draws, key)

    def split(rows: Array) -> Array:
        # Every parts-th row: each device keeps its own rows, and each part sees the whole range of noise levels.
        return jnp.moveaxis(rows.reshape(-1, parts, *rows.shape[1:]), 1, 0)

    def add(total: Any, part: tuple[Draws, Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, value_and_grad(params, *part)), None

    zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
    total, _ = jax.lax.scan(add, zero, (jax.tree.map(split, draws), jax.random.split(key, parts)), unroll=unroll)
    return jax.tree.map(lambda value: value / parts, total)
