"""The Inception network: pools and blocks against plain sums, its size as published, and how its weights are read."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.evaluation.features import extract, inception
from geonoise_jax.evaluation.features.conversion import convert
from geonoise_jax.evaluation.features.pretrained import inception_names
from geonoise_jax.nets import inception as nets
from geonoise_jax.nets.inception import BLOCKS, InceptionV3, Mixed
from tests.torch_state_files import inception_shapes, random_state, write

RNG = np.random.default_rng


@functools.cache
def shapes_of(size: int) -> Any:
    return jax.eval_shape(InceptionV3().init, jax.random.key(0), jnp.zeros((1, size, size, 3)))["params"]


def test_it_has_the_size_of_the_published_file() -> None:
    """95,628,359 bytes are its numbers in four bytes each, beside names and checksums."""
    shapes = inception_shapes()
    numbers = 4 * sum(int(np.prod(shape)) for shape in shapes.values())
    assert 0 < 95_628_359 - numbers < 200_000
    assert sum(name.endswith("conv.weight") for name in shapes) == 94


def test_shapes_along_the_network() -> None:
    """As in table 1 of Szegedy et al. 2016, from 299x299 pixels to 8x8x2048."""
    net = InceptionV3()

    def run(params: Any, x: jax.Array) -> Any:
        outputs, state = net.apply(params, x, capture_intermediates=lambda module, _: isinstance(module, Mixed))
        return outputs, state["intermediates"]

    (features, logits), blocks = jax.eval_shape(run, {"params": shapes_of(299)}, jnp.zeros((2, 299, 299, 3)))
    assert features.shape == (2, 2048)
    assert logits.shape == (2, 1008)
    seen = {name: blocks[name]["__call__"][0].shape[1:] for name in BLOCKS}
    assert seen["Mixed_5b"] == (35, 35, 256)
    assert seen["Mixed_5c"] == seen["Mixed_5d"] == (35, 35, 288)
    assert {seen[f"Mixed_6{letter}"] for letter in "abcde"} == {(17, 17, 768)}
    assert seen["Mixed_7a"] == (8, 8, 1280)
    assert seen["Mixed_7b"] == seen["Mixed_7c"] == (8, 8, 2048)


def test_pools() -> None:
    x = RNG(0).normal(size=(1, 5, 6, 2)).astype(np.float32)
    around = [
        [x[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].reshape(1, -1, 2) for j in range(6)] for i in range(5)
    ]
    mean = np.stack([np.stack([each.mean(1) for each in row], axis=1) for row in around], axis=1)
    top = np.stack([np.stack([each.max(1) for each in row], axis=1) for row in around], axis=1)
    np.testing.assert_allclose(nets.average_pool(jnp.asarray(x)), mean, atol=1e-6)
    np.testing.assert_array_equal(nets.max_pool(jnp.asarray(x)), top)
    np.testing.assert_array_equal(nets.halve(jnp.asarray(x)), top[:, 1:-1:2, 1:-1:2])
    assert BLOCKS["Mixed_7b"].pool is nets.average_pool
    assert BLOCKS["Mixed_7c"].pool is nets.max_pool, "the graph of 2015 pools otherwise in its last block"


def convolved(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray, stride: int = 1) -> np.ndarray:
    """ReLU of a convolution, one output pixel after another."""
    h, w = kernel.shape[:2]
    if stride == 1:
        x = np.pad(x, ((0, 0), (h // 2, h // 2), (w // 2, w // 2), (0, 0)))
    rows, columns = ((n - k) // stride + 1 for n, k in zip(x.shape[1:3], (h, w), strict=True))
    pixels = [
        np.einsum("bhwc,hwco->bo", x[:, i * stride : i * stride + h, j * stride : j * stride + w], kernel) + bias
        for i in range(rows)
        for j in range(columns)
    ]
    return np.maximum(np.stack(pixels, axis=1).reshape(len(x), rows, columns, -1), 0.0)


@pytest.mark.parametrize("name", ["Mixed_7b", "Mixed_7a"])
def test_branches_stand_side_by_side_in_the_order_of_the_published_file(name: str) -> None:
    """A fork inside of a branch, and one whose layers have strides."""
    x = RNG(0).normal(size=(1, 5, 6, 3)).astype(np.float32)
    block = Mixed(BLOCKS[name])
    abstract = jax.eval_shape(block.init, jax.random.key(0), x)["params"]
    params = jax.tree.map(lambda leaf: (0.1 * RNG(leaf.size).normal(size=leaf.shape)).astype(np.float32), abstract)

    def through(x: np.ndarray, *layers: str, stride: int = 1) -> np.ndarray:
        for layer in layers:
            last = stride if layer == layers[-1] else 1
            x = convolved(x, params[layer]["kernel"], params[layer]["bias"], last)
        return x

    if name == "Mixed_7a":
        long = [f"branch7x7x3_{number}" for number in range(1, 5)]
        wanted = [through(x, "branch3x3_1", "branch3x3_2", stride=2), through(x, *long, stride=2)]
        wanted.append(np.asarray(nets.halve(jnp.asarray(x))))
    else:
        pooled = np.asarray(nets.average_pool(jnp.asarray(x)))
        once, twice = through(x, "branch3x3_1"), through(x, "branch3x3dbl_1", "branch3x3dbl_2")
        wanted = [through(x, "branch1x1"), through(once, "branch3x3_2a"), through(once, "branch3x3_2b")]
        wanted += [through(twice, "branch3x3dbl_3a"), through(twice, "branch3x3dbl_3b"), through(pooled, "branch_pool")]
    found = jax.jit(block.apply)({"params": params}, x)
    np.testing.assert_allclose(np.asarray(found), np.concatenate(wanted, axis=-1), rtol=1e-4, atol=1e-4)


def test_every_array_has_its_place() -> None:
    state = random_state(inception_shapes())
    params = convert(shapes_of(75), state, inception_names)
    gamma, var = (state[f"Conv2d_2b_3x3.bn.{name}"].astype(np.float64) for name in ("weight", "running_var"))
    kernel = state["Conv2d_2b_3x3.conv.weight"].transpose(2, 3, 1, 0) * gamma / np.sqrt(var + 1e-3)
    np.testing.assert_allclose(params["Conv2d_2b_3x3"]["kernel"], kernel, rtol=1e-6)
    np.testing.assert_array_equal(params["fc"]["kernel"], state["fc.weight"].T)
    assert set(params["fc"]) == {"kernel"}, "the inception score is defined without a bias"
    del state["Mixed_6d.branch7x7_2.bn.running_mean"]
    with pytest.raises(ValueError, match="weights: have no Mixed_6d.branch7x7_2.bn.running_mean"):
        convert(shapes_of(75), state, inception_names)


@pytest.mark.slow
def test_from_a_file_to_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both formats give the same network, and every protocol other features."""
    state = random_state(inception_shapes())
    old, new = (write(tmp_path / f"{old}.pth", state, old=old) for old in (True, False))
    images = RNG(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    monkeypatch.setenv("GEONOISE_INCEPTION", str(old))
    found = {name: extract(inception(name), images) for name in ("edm", "pytorch_fid", "clean_fid")}
    again = extract(inception("edm", path=new), images)
    np.testing.assert_array_equal(again.features, found["edm"].features)
    assert again.logits is not None
    assert again.features.shape == (2, 2048)
    assert again.logits.shape == (2, 1008)
    np.testing.assert_allclose(again.logits, again.features @ state["fc.weight"].T, rtol=1e-3, atol=1e-3)
    for name in ("pytorch_fid", "clean_fid"):
        assert np.abs(found[name].features - again.features).max() > 1e-3
    assert inception("edm", path=new).protocol.startswith("edm: inception, weights ")
