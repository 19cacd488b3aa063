"""Extraction: rows in their order whatever the batches and devices, in bounded memory, and images that are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geonoise_jax.evaluation.features import FeatureNetwork, Features, extract, stream
from geonoise_jax.training.sharding import sampling_mesh

RNG = np.random.default_rng
IMAGES = RNG(0).uniform(-1, 1, (21, 4, 4, 1)).astype(np.float32)
PIXELS = RNG(0).integers(0, 256, (21, 4, 4, 1), dtype=np.uint8)


def linear(*, classes: bool = True) -> FeatureNetwork:
    """Features that are products with a matrix, of images brought to -1..1."""
    matrix = jnp.asarray(RNG(1).normal(size=(16, 5)), jnp.float32)

    def apply(params: Any, images: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        seen = images.astype(jnp.float32) / 255.0 if images.dtype == jnp.uint8 else images
        features = seen.reshape(len(images), 16) @ params
        return features, features[:, :2] if classes else None

    return FeatureNetwork(
        name="linear", protocol="linear", dimension=5, num_classes=2 * classes, params=matrix, apply=apply
    )


DEVICES = 8  # see conftest

NET = linear()
WANTED = IMAGES.reshape(21, 16) @ np.asarray(NET.params)


@pytest.mark.parametrize("devices", [None, 1, 2, 8])
@pytest.mark.parametrize("batch_size", [1, 4, 7, 21, 500])
def test_rows_do_not_depend_on_batches_or_devices(batch_size: int, devices: int | None) -> None:
    mesh = None if devices is None else sampling_mesh(jax.devices()[:devices])
    found = extract(NET, IMAGES, batch_size=batch_size, mesh=mesh)
    assert found.features.shape == (21, 5)
    assert found.features.dtype == np.float32
    np.testing.assert_allclose(found.features, WANTED, rtol=1e-5, atol=1e-5)
    assert found.logits is not None
    np.testing.assert_array_equal(found.logits, found.features[:, :2])
    assert found.not_finite == 0


@pytest.mark.parametrize("sizes", [[21], [1] * 21, [5, 0, 16], [20, 1]])
def test_batches_come_one_by_one_in_any_size(sizes: list[int]) -> None:
    parts = np.split(IMAGES, np.cumsum(sizes)[:-1])
    np.testing.assert_allclose(extract(NET, iter(parts), batch_size=4).features, WANTED, rtol=1e-5, atol=1e-5)


def test_a_mesh_computes_each_batch_over_all_its_devices() -> None:
    seen = []

    def apply(params: Any, images: jax.Array) -> tuple[jax.Array, None]:
        jax.debug.inspect_array_sharding(images, callback=lambda sharding: seen.append(sharding))
        return images.reshape(len(images), 16), None

    net = FeatureNetwork(name="n", protocol="p", dimension=16, num_classes=0, params={}, apply=apply)
    extract(net, IMAGES, batch_size=5, mesh=sampling_mesh())
    assert {each.shard_shape((8, 4, 4, 1)) for each in seen} == {(1, 4, 4, 1)}


def test_only_two_batches_are_held() -> None:
    taken = 0

    def batches() -> Iterator[np.ndarray]:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield IMAGES[:4]

    parts = stream(NET, batches(), batch_size=4)
    for number in range(1, 5):
        assert next(parts).features.shape == (4, 5)
        assert taken <= number + 1


def test_a_network_is_compiled_once() -> None:
    traced = []

    def apply(params: Any, images: jax.Array) -> tuple[jax.Array, None]:
        traced.append(images.shape)
        return images.reshape(len(images), 16), None

    net = FeatureNetwork(name="n", protocol="p", dimension=16, num_classes=0, params={}, apply=apply)
    for _ in range(3):
        extract(net, IMAGES, batch_size=4)
    assert traced == [(4, 4, 4, 1)]
    assert extract(net, IMAGES[:3], batch_size=4).features.shape == (3, 16)
    assert traced[1:] == [(3, 4, 4, 1)], "few images are not filled up to a batch"


def test_progress_counts_images() -> None:
    done: list[int] = []
    extract(NET, IMAGES, batch_size=8, progress=done.append)
    assert done == [8, 16, 21]


def test_pixels_and_networks_without_classes() -> None:
    found = extract(linear(classes=False), PIXELS, batch_size=8)
    assert found.logits is None
    np.testing.assert_allclose(found.features, PIXELS.reshape(21, 16) / 255 @ np.asarray(NET.params), rtol=1e-4)
    np.testing.assert_array_equal(np.asarray(NET.features(jnp.asarray(PIXELS)))[:3], found.features[:3])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_images_that_are_not_finite_are_refused_or_counted_and_never_features(value: float) -> None:
    images = IMAGES.copy()
    images[[9, 20], 1, 2] = value
    with pytest.raises(ValueError, match=r"1 of 8 in a batch hold numbers that are not finite, the first at index 9;"):
        extract(NET, images, batch_size=8)
    found = extract(NET, images, batch_size=8, not_finite="mark")
    assert found.not_finite == 2
    bad = np.isin(np.arange(21), [9, 20])
    assert found.logits is not None
    assert np.isnan(found.features[bad]).all()
    assert np.isnan(found.logits[bad]).all()
    np.testing.assert_allclose(found.features[~bad], WANTED[~bad], rtol=1e-5, atol=1e-5)


def empty() -> Features:
    return extract(NET, IMAGES[:0])


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (empty, "images: 0; must be at least 1"),
    (lambda: extract(NET, iter(())), "images: 0; must be at least 1"),
    (lambda: extract(NET, np.ones(())), r"images.shape = \[\]"),
    (lambda: extract(NET, cast("Any", [IMAGES, PIXELS])), "a batch is uint8 .* after float32"),
    (lambda: extract(NET, iter([IMAGES, IMAGES[:, :3]])), "must be of one dtype and shape"),
    (lambda: extract(NET, IMAGES, batch_size=0), "batch_size = 0: must be an integer >= 1"),
    (lambda: extract(NET, IMAGES, not_finite="drop"), "not_finite = 'drop': must be one of refuse, mark"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_bad_input_is_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
