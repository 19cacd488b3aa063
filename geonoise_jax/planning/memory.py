"""Memory of a training step by formula, without compiling it.

state:      parameters, average, optimizer, further averages, each as it is sharded: exact;
data:       what stays on every device, and a device's rows of the batch: exact;
gradients:  one number for each parameter, whole on every device before it is split;
activations: what the backward pass needs of the forward pass of one micro-batch, an estimate: half of the
            residuals of ``jax.vjp`` of the loss. A compiler computes cheap ones again: that for GPUs kept 0.4 to 0.5
            of those of U-Nets; those for TPUs and CPUs kept up to 0.9, see the documentation. Few channels take more
            on a TPU, which fills them up to 128.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
from jax.sharding import Sharding
from jaxtyping import PyTree

from geonoise_jax.planning.facts import Memory
from geonoise_jax.process.keys import root_key
from geonoise_jax.training.train import Setup

# Of the residuals, what compilers keep.
_KEPT = 0.5


def of_step(setup: Setup) -> tuple[Memory, int]:
    """Return the estimate for a step, and the bytes of its gradients.

    Args:
        setup: a run on its devices, from shapes alone.
    """
    state = on_device(setup.abstract)
    data = on_device((setup.resident, setup.batch(0)))
    gradients = whole(setup.abstract.params)
    memory = Memory(
        arguments=state + data,
        outputs=state,
        aliased=state,
        temporaries=gradients + activations(setup),
    )
    return memory, gradients


def of_sampler(field: Any, size: int, devices: int) -> Memory:
    """Return the estimate for a sampler: the parameters, and the observations of one batch a few times.

    What the network itself works on is left out.
    """
    rows = -(-size // devices) * math.prod(field.event_shape) * 4
    return Memory(arguments=on_device(field), outputs=rows, aliased=0, temporaries=3 * rows)


def activations(setup: Setup) -> int:
    """Return the bytes that a compiler keeps of the forward pass of one device's micro-batch, an estimate."""
    budget = setup.run.budget
    rows = budget.batch_size // (budget.accumulate * setup.mesh.shape["data"])
    # What does not grow are the parameters, which are the state's, and constants.
    return round(_KEPT * (_residuals(setup, 2 * rows) - _residuals(setup, rows)))


def _residuals(setup: Setup, rows: int) -> int:
    run = setup.run
    objective, params = run.goal(), _placeless(setup.abstract.params)
    x = jax.ShapeDtypeStruct((rows, *run.data.event_shape), "float32")
    labels = jax.ShapeDtypeStruct((rows,), "int32") if run.num_classes else None
    draws = jax.eval_shape(lambda x, labels: objective.draw(root_key(0), x, labels), x, labels)

    def residuals(params: PyTree, draws: Any) -> Any:
        def loss(params: PyTree) -> Any:
            return objective.loss(dataclasses.replace(run.field(None), params=params), draws, root_key(0))

        return jax.vjp(loss, params)[1]

    return whole(jax.eval_shape(residuals, params, draws))


def on_device(tree: PyTree) -> int:
    """Return the bytes of abstract arrays on the device that has most of them."""
    placed = [leaf for leaf in jax.tree.leaves(tree) if isinstance(getattr(leaf, "sharding", None), Sharding)]
    return sum(_bytes(leaf, leaf.sharding.shard_shape(leaf.shape)) for leaf in placed)


def whole(tree: PyTree) -> int:
    """Return the bytes of abstract arrays that are not sharded."""
    return sum(_bytes(leaf, leaf.shape) for leaf in jax.tree.leaves(tree))


def _bytes(leaf: Any, shape: tuple[int, ...]) -> int:
    size = 8 if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf.dtype.itemsize
    return math.prod(shape) * size


def _placeless(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
