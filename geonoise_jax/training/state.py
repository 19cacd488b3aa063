"""The training state: one pytree that a checkpoint holds and a step maps to the next."""

from __future__ import annotations

from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from clu import metrics
from jaxtyping import Array, Key, PyTree

from geonoise_jax.process.keys import root_key

# Means over the steps since the last logged one; in the state, so that a resumed run logs the same numbers.
WindowMetrics: Any = metrics.Collection.create(
    **{name: metrics.Average.from_output(name) for name in ("loss", "grad_norm", "update_norm")}
)


@flax.struct.dataclass
class TrainState:
    """All that changes while training; of arrays, or of their shapes and shardings when it is abstract.

    Attributes:
        step: number of updates done, an int32 scalar.
        params: network parameters.
        ema_params: their moving average, which samples and evaluation use.
        opt_state: optax state.
        window: running means of the metrics.
    """

    step: Any
    params: Any
    ema_params: Any
    opt_state: Any
    window: Any


def init_params(module: Any, event_shape: tuple[int, ...], key: Key[Array, ""]) -> PyTree[Array]:
    """Return fresh parameters of a network for events of this shape."""
    u = jnp.zeros((1, *event_shape))
    labels = jnp.zeros(1, jnp.int32) if module.num_classes else None
    return module.init(key, u, jnp.zeros(1) if module.conditional else None, labels)["params"]


def init_key(seed: int) -> Key[Array, ""]:
    """Return the key of a run's initial parameters."""
    return jax.random.fold_in(root_key(seed), 1)


def init_state(
    module: Any, event_shape: tuple[int, ...], optimizer: optax.GradientTransformation, key: Key[Array, ""]
) -> TrainState:
    """Return the state before the first step; pure, to be traced for its shapes or jitted with shardings."""
    params = init_params(module, event_shape, key)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema_params=jax.tree.map(jnp.copy, params),
        opt_state=optimizer.init(params),
        window=WindowMetrics.empty(),
    )
