"""Our U-Net against the independent one of adm_network.py, with the same weights: parameters, outputs, gradients."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from geonoise_jax.nets.unet import UNet
from tests.parity.adm_network import Network
from tests.parity.agreement import Agree

LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}
BATCH, HEIGHT, COLOURS = 3, 16, 3
# Channels, multipliers, blocks, attended heights, heads, classes, blind.
CASES: dict[str, tuple[int, tuple[int, ...], int, tuple[int, ...], int, int, bool]] = {
    "ADM": (32, (1, 2, 3), 1, (8, 4), 4, 5, False),
    "DDPM": (32, (1, 2, 2), 1, (8,), 1, 0, False),
    "narrow": (16, (1, 2), 1, (), 1, 0, False),
    "blind": (32, (1, 2), 2, (8,), 2, 0, True),
}


def random_parameters(tree: Any) -> dict[str, np.ndarray]:
    """Random values for a parameter tree, which starts with many zeros; by dotted path."""
    rng = np.random.default_rng(11)
    values = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = ".".join(entry.key for entry in path)
        size = np.sqrt(np.prod(leaf.shape[:-1])) if leaf.ndim > 1 else 4.0
        values[name] = rng.normal(size=leaf.shape) / size + name.endswith(".scale")
    return values


def nested(values: dict[str, Any], like: Any) -> Any:
    """The tree of the values."""
    names = [".".join(entry.key for entry in path) for path, _ in jax.tree_util.tree_flatten_with_path(like)[0]]
    return jax.tree.unflatten(jax.tree.structure(like), [jnp.asarray(values[name]) for name in names])


def transplanted(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    """Name and layout that a parameter of ours has in the other network."""
    parent, _, leaf = name.rpartition(".")
    if leaf == "kernel":
        value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
    if leaf == "embedding":
        parent = f"{parent}.embedding"
    return ("" if parent.startswith("conditioning") else "parts.") + f"{parent}.{LEAVES[leaf]}", value


@pytest.mark.parametrize("case", CASES)
def test_unet(agree: Agree, case: str) -> None:
    channels, multipliers, blocks, attended, heads, classes, blind = CASES[case]
    rng = np.random.default_rng(12)
    u, weight = rng.normal(size=(2, BATCH, HEIGHT, HEIGHT, COLOURS))
    t, labels = rng.uniform(size=BATCH), rng.integers(0, classes + 1, size=BATCH)
    given = (None if blind else t, labels if classes else None)
    ours = UNet(
        base_channels=channels,
        channel_multipliers=multipliers,
        blocks_per_level=blocks,
        attention_resolutions=attended,
        num_heads=heads,
        num_classes=classes,
        conditional=not blind,
        dtype="float64",
    )
    like = jax.eval_shape(ours.init, jax.random.key(0), u, *given)["params"]
    values = random_parameters(like)
    theirs = Network(COLOURS, channels, multipliers, blocks, attended, heads, classes, HEIGHT, blind=blind)
    # Strictly: each has exactly the parameters of the other.
    state = dict(transplanted(name, value) for name, value in values.items())
    theirs.load_state_dict({name: torch.as_tensor(value.copy()) for name, value in state.items()})
    assert sum(each.numel() for each in theirs.parameters()) == sum(value.size for value in values.values())

    def output(params: Any) -> jax.Array:
        return jnp.asarray(ours.apply({"params": params}, u, *given))

    params = nested(values, like)
    result = theirs(torch.as_tensor(u).permute(0, 3, 1, 2), *(None if x is None else torch.as_tensor(x) for x in given))
    agree(
        "torch", "U-Net of the ADM kind, output, 4 nets", jax.jit(output)(params), result.detach().permute(0, 2, 3, 1)
    )
    if case != "ADM":
        return  # a gradient takes long to compile
    gradient = jax.jit(jax.grad(lambda params: (output(params) * weight).sum()))(params)
    (result * torch.as_tensor(weight).permute(0, 3, 1, 2)).sum().backward()
    found = {name: each.grad for name, each in theirs.named_parameters()}
    for path, leaf in jax.tree_util.tree_flatten_with_path(gradient)[0]:
        name, value = transplanted(".".join(entry.key for entry in path), np.asarray(leaf))
        agree("torch", "U-Net of the ADM kind, gradient of each parameter", value, found[name])
