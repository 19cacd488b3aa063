"""From the state dict of a torch network to the parameters of ours, which has no normalisations of its own.

Batch normalisation with fixed statistics (Ioffe & Szegedy 2015, algorithm 2) is linear in what a convolution returns:
gamma (W x - mean) / sqrt(var + eps) + beta is the convolution with W gamma / sqrt(var + eps) and the bias
beta - mean gamma / sqrt(var + eps).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from geonoise_jax.errors import UserError

# Of the folded normalisations of both networks, as TensorFlow's layers have it.
EPSILON = 1e-3

State = Mapping[str, np.ndarray]
Names = Callable[[tuple[str, ...]], tuple[str, str | None]]


def convert(abstract: Mapping[str, Any], state: State, names: Names, path: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the parameters of a network from the state dict of another.

    Args:
        abstract: the parameters by nested names, of which the shapes count.
        state: arrays by dotted names, kernels as [out, in, h, w] or [out, in].
        names: of the layer at a path of ours: how its weights and how its normalisation are called there, if any.
        path: where in the tree ``abstract`` is.

    Raises:
        UserError: if an array is missing or has another shape.
    """
    if "kernel" not in abstract:
        return {key: convert(value, state, names, (*path, key)) for key, value in abstract.items()}
    found = _layer(state, *names(path))
    for key, wanted in abstract.items():
        if found[key].shape != wanted.shape:
            raise UserError(
                f"weights of {'.'.join(path)}.{key}: have shape {list(found[key].shape)}; must be {list(wanted.shape)}"
            )
    return {key: found[key].astype(np.float32) for key in abstract}


def _layer(state: State, layer: str, norm: str | None) -> dict[str, Float[np.ndarray, "..."]]:
    weight = _entry(state, f"{layer}.weight").astype(np.float64)
    if norm is None:
        bias = state.get(f"{layer}.bias", np.zeros(0))
    else:
        gamma, beta, mean, var = (
            _entry(state, f"{norm}.{name}").astype(np.float64)
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        if {gamma.shape, beta.shape, mean.shape, var.shape} != {weight.shape[:1]}:
            raise UserError(f"weights of {norm}: must have one number for each of {weight.shape[0]} channels")
        slope = gamma / np.sqrt(var + EPSILON)
        weight, bias = weight * slope.reshape(-1, *(1,) * (weight.ndim - 1)), beta - mean * slope
    return {"kernel": weight.transpose(*range(2, weight.ndim), 1, 0), "bias": bias}


def _entry(state: State, name: str) -> np.ndarray:
    if name not in state:
        raise UserError(f"weights: have no {name}; must be the state dict of the network that they are given as")
    return state[name]
