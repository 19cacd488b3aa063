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
from geonoise_jax.training.sharding import path_name

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
        posthoc: further averages of the parameters, see ``training.posthoc_ema``; none in most runs.

    The type of every array is that of :func:`init_state` from the first step to the last, see :func:`with_types_of`.
    """

    step: Any
    params: Any
    ema_params: Any
    opt_state: Any
    window: Any
    posthoc: Any = ()


def init_params(module: Any, event_shape: tuple[int, ...], key: Key[Array, ""]) -> PyTree[Array]:
    """Return fresh parameters of a network for events of this shape; of a module of others, see ``training.run``."""
    u = jnp.zeros((1, *event_shape))
    labels = jnp.zeros(1, jnp.int32) if getattr(module, "num_classes", 0) else None
    return module.init(key, u, jnp.zeros(1) if getattr(module, "conditional", True) else None, labels)["params"]


def init_key(seed: int) -> Key[Array, ""]:
    """Return the key of a run's initial parameters."""
    return jax.random.fold_in(root_key(seed), 1)


def init_state(
    module: Any,
    event_shape: tuple[int, ...],
    optimizer: optax.GradientTransformation,
    key: Key[Array, ""],
    posthoc: int = 0,
) -> TrainState:
    """Return the state before the first step; pure, to be traced for its shapes or jitted with shardings.

    Args:
        module: the network.
        event_shape: shape of one sample.
        optimizer: optax chain.
        key: PRNG key of the parameters.
        posthoc: number of further averages.
    """
    params = init_params(module, event_shape, key)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema_params=jax.tree.map(jnp.copy, params),
        opt_state=optimizer.init(params),
        window=jax.tree.map(_in_default_precision, WindowMetrics.empty()),
        posthoc=tuple(jax.tree.map(jnp.copy, params) for _ in range(posthoc)),
    )


def with_types_of(state: TrainState, new: TrainState) -> TrainState:
    """Return a new state with the dtypes of an old one.

    Precisions mix in a step: under ``jax_enable_x64`` noise levels, averages' weights and rates are float64 beside
    float32 parameters.
    """
    return jax.tree.map(lambda old, value: value.astype(old.dtype), state, new)


def types(tree: PyTree[Array]) -> dict[str, str]:
    """Return dtype and shape of every array by its path, such as ``{"params/in/kernel": "float32[3,16]"}``."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {path_name(path): f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]" for path, leaf in leaves}


def _in_default_precision(value: Array) -> Array:
    return value.astype(jnp.result_type(float)) if jnp.issubdtype(value.dtype, jnp.floating) else value
